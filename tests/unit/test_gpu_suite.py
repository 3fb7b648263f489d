"""tests/gpu on a machine without a GPU: that it is collected, and that its settings are some."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sppo import compute, config
from sppo.launch.room import Machine, seats, staff
from tests.gpu import test_engine, test_runs

FOLDER = Path(__file__).parents[1] / "gpu"


def test_without_a_gpu_each_test_is_collected_and_says_what_it_would_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    quiet = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest"]
    code = pytest.main([str(FOLDER), *quiet])
    said = capsys.readouterr().out
    assert code == pytest.ExitCode.OK
    assert "passed" not in said
    assert "failed" not in said
    told = [line for line in said.splitlines() if "0 here. It would: " in line]
    assert len(told) >= 8
    assert all(len(line.split("It would: ")[1]) > 30 for line in told)
    for word in ("kernels", "vLLM", "gloo", "NCCL", "CUDA IPC", "one GPU", "GPU each", "FSDP2"):
        assert any(word in line for line in told), word


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ([*test_runs.COMMON, *test_runs.ONE_GPU], 1),
        (test_runs.COMMON, 2),
        (test_engine.SETTINGS, 2),
    ],
)
def test_its_runs_are_placed_on_the_gpus_that_they_name(given: list[str], gpus: int) -> None:
    run = compute.decided(config.load("quickstart", given, environment=False), cuda=True)
    found = seats([Machine(name="m", gpus=gpus, cpus=16)], run, staff(run))
    assert sum(seat.demand.gpus for seat in found.values()) == gpus
    assert (run.learner.device, run.compute) == ("cuda", "bfloat16")
