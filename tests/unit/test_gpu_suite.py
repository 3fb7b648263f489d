"""tests/gpu on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
