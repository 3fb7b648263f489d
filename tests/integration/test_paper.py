"""The preset `paper` whole, with settings as small as those of docs/presets.md and fewer steps:
three iterations over forty prompts, five completions of each compared by a small model in PairRM's
format.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from examples.scorers import tiny_models
from tests.integration.conftest import REPOSITORY, processes_below
from tests.integration.test_end_to_end import CLI, MINUTES, records

PROMPTS, ITERATION, GROUPS = 40, 2, 8
STEPS = 3 * ITERATION  # a pass over the prompts, and more of the next
SMALL = {
    "task.name": "jsonl:examples/data/prompts.jsonl",
    "task.held_out": 4,
    "sampling.max_tokens": 16,
    "learner.groups_per_step": GROUPS,
    "learner.steps": STEPS,
    "learner.ranks": 1,
    "learner.micro_batch_tokens": 1024,
    "objective.iteration_steps": ITERATION,
    "optimizer.warmup_steps": 1,
    "scorer.options.device": "cpu",
    "scorer.gpus": 0,
    # docs/presets.md has neither: the test's model writes nonsense, and Transformers starts sooner
    "generator.engine": "transformers",
    "compute": "float32",
}

pytestmark = pytest.mark.timeout(6 * MINUTES)


def test_the_paper_runs_three_iterations(small_model: str, tmp_path: Path) -> None:
    run_dir, ranker = tmp_path / "run", tmp_path / "pairrm"
    # Given a ranker with random weights
    ranker.mkdir()
    torch.manual_seed(0)
    tiny_models.MODELS["pairrm"](ranker)
    settings = SMALL | {"model.name": small_model, "scorer.options.model": str(ranker)}
    # When the preset is run
    done = subprocess.run(
        [CLI, "up", "paper", "--run-dir", str(run_dir),
         *(f"--set={key}={value}" for key, value in settings.items())],
        capture_output=True, text=True, cwd=REPOSITORY, check=False,
    )  # fmt: skip
    # Then every step is taken, and every prompt asked
    assert done.returncode == 0, done.stdout + done.stderr
    lines = records(run_dir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert f"{PROMPTS} rows: 33 prompts to train; 4 held out" in done.stdout + done.stderr
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert (summary["finished"], summary["restarts"]) == (True, {})
    assert (summary["tickets"]["trained"], summary["tickets"]["twice"]) == (STEPS * GROUPS, 0)
    # by preferences: the best and the worst of each are trained
    for line in lines:
        assert line["reward_mean"] is None
        assert round(line["tokens"] / line["length_mean"]) <= 2 * GROUPS
    # held out are compared with the base model's answers
    first, *_, last = summary["evaluations"]
    assert (first["n"], last["n"], last["step"]) == (4, 4, STEPS)
    assert first["win_rate"] == pytest.approx(0.5, abs=0.01)  # an answer meets itself
    assert 0 <= last["win_rate"] <= 1
    # against the policy that the iteration began with, at temperature 1: it moves away from it,
    # and begins anew
    begun = [line["step"] for line in lines if line["delta_std"] is None]
    assert begun == [1, 1 + ITERATION, 1 + 2 * ITERATION]
    assert all(line["delta_std"] > 0 for line in lines if line["step"] not in begun)
    assert processes_below(run_dir) == []
