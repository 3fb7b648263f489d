"""A few steps of `quickstart` on one GPU and on two, and a learner of two ranks."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.conftest import ROOT, Figures

CLI = str(Path(sys.executable).with_name("sppo-cli"))
STEPS = 6
COMMON = ["learner.device=cuda", f"learner.steps={STEPS}", "learner.groups_per_step=8",
          "sampling.completions=8", "task.held_out=32", "eval.every_steps=99"]  # fmt: skip
ONE_GPU = ["launch.share_gpu=true", "generator.kv_cache_gib=2"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def up(folder: Path, settings: list[str], figures: Figures) -> None:
    """Train, and write down what a person would look at first."""
    given = [part for each in (*COMMON, *settings) for part in ("--set", each)]
    done = subprocess.run(
        [CLI, "up", "quickstart", "--run-dir", str(folder), *given],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    steps, events = lines(folder / "metrics.jsonl"), lines(folder / "events.jsonl")
    trained = [line for line in steps if "step_s" in line]
    assert trained[-1]["step"] == STEPS
    (parity,) = [e["mismatch"] for e in events if e.get("kind") == "parity"]
    figures.add("parity", parity, "nats")
    assert parity < 0.1
    figures.add("first step", trained[0]["step_s"], "s")
    figures.add("later steps, median", statistics.median(t["step_s"] for t in trained[1:]), "s")
    syncs = [e for e in events if e.get("kind") == "sync"]
    for part in ("stage_s", "transfer_s"):
        figures.add(f"sync, {part}", statistics.median(e[part] for e in syncs[1:]), "s")


@pytest.mark.gpus(1)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("turns", [False, True])
def test_quickstart_on_one_gpu(turns: bool, tmp_path: Path, figures: Figures) -> None:
    """Train the default model for six steps, learner and vLLM on one GPU by CUDA IPC; at once, or
    in turns, where vLLM sleeps while the learner trains.
    """
    up(tmp_path / "run", [*ONE_GPU, f"launch.take_turns={str(turns).lower()}"], figures)
    for name in ("learner-0", "generator-0"):
        said = (tmp_path / "run" / "logs" / f"{name}.log").read_text(encoding="utf-8")
        assert "weights go over gloo" not in said
    assert (said.count("awake") >= STEPS) is turns


@pytest.mark.gpus(2)
@pytest.mark.timeout(300)
def test_quickstart_on_two_gpus(tmp_path: Path, figures: Figures) -> None:
    """Train the default model for six steps, learner and vLLM on a GPU each, weights over NCCL."""
    up(tmp_path / "run", [], figures)


@pytest.mark.gpus(2)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["centered", "softmean"])
def test_two_ranks_have_the_gradients_of_one(name: str, tmp_path: Path, figures: Figures) -> None:
    """Train a tiny model with FSDP2 on two GPUs over NCCL, and compare gradients with those of one
    rank.
    """
    from safetensors.torch import load_file

    from tests import makers
    from tests.integration import rank

    makers.tiny_model(tmp_path / "model", vocabulary=rank.VOCABULARY)
    wanted = {**os.environ, "RANK_DEVICE": "cuda"}
    for size in (1, 2):
        command = [sys.executable, "-m", "tests.integration.rank"]
        ranks = [
            subprocess.Popen(
                [*command, str(r), str(size), str(tmp_path), name], cwd=ROOT, env=wanted
            )
            for r in range(size)
        ]
        assert [p.wait(120) for p in ranks] == [0] * size
    one, two = (load_file(tmp_path / f"gradients-{name}-{size}.safetensors") for size in (1, 2))
    assert one.keys() == two.keys()
    worst = max(
        float((two[key] - value).norm()) / (float(value.norm()) + 1e-9)
        for key, value in one.items()
    )
    figures.add("gradients, largest relative gap", worst, "")
    assert worst < 1e-3
