"""A run with an objective of the user's own: the example, by its import string. It trains
adapters, on the device that it shares with vLLM: weights go through shared memory, and turns are
taken.
"""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo.errors import ConfigError
from tests.integration.conftest import REPOSITORY, SMALL_SCORER, processes_below
from tests.integration.test_end_to_end import CLI, MINUTES, records

STEPS = 4
SETTINGS: dict[str, Any] = {
    "compute": "float32",
    "scorer.name": SMALL_SCORER,
    "launch.share_gpu": "true",
    "launch.take_turns": "true",
    "sampling.completions": 4,
    "task.held_out": 0,
    "learner.steps": STEPS,
    "learner.groups_per_step": 4,
    "learner.mini_batches": 2,
    "objective.name": "examples.objective.ipo:Ipo",
    "objective.params.tau": 0.25,
    "adapter.rank": 8,
    "optimizer.lr": 1e-4,
}

pytestmark = pytest.mark.timeout(6 * MINUTES)


def test_an_objective_of_ones_own_trains(small_model: str, tmp_path: Path) -> None:
    # Given a class that the project does not know
    run_dir = tmp_path / "run"
    # When it is named by its import string
    done = subprocess.run(
        [CLI, "up", "quickstart", "--run-dir", str(run_dir), f"--set=model.name={small_model}",
         *(f"--set={key}={value}" for key, value in SETTINGS.items())],
        capture_output=True, text=True, cwd=REPOSITORY, check=False,
    )  # fmt: skip
    # Then every step is taken, with the figures that the class sums up itself
    assert done.returncode == 0, done.stdout + done.stderr
    lines, batches = records(run_dir), STEPS // SETTINGS["learner.mini_batches"]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    gaps = [line["ipo_gap"] for line in lines if line["ipo_gap"] is not None]
    assert gaps
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert gaps[0] == pytest.approx(0, abs=1e-3)  # the policy is its reference before it moves
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert (summary["finished"], summary["restarts"]) == (True, {})
    assert processes_below(run_dir) == []
    # The engine slept through each step and the check before them (once for two of these where the
    # learner asks again before it is awake), and nothing was sent to it
    said = {p.stem: p.read_text(encoding="utf-8") for p in (run_dir / "logs").iterdir()}
    slept, woke = (said["generator-0"].count(word) for word in ("asleep", "awake"))
    assert slept == woke
    assert batches <= slept <= 1 + batches
    assert "weights go over gloo" not in said["learner-0"]
    assert summary["time"]["turn"] > 0
    # And the export is the base model with what was trained, which lies beside it as well
    base, export = Path(small_model), run_dir / "export"
    before, after, trained = (
        load_file(file)
        for file in (
            base / "model.safetensors",
            export / "model.safetensors",
            export / "adapter" / "adapter_model.safetensors",
        )
    )
    assert before.keys() == after.keys()
    changed = {name for name, w in before.items() if not torch.equal(after[name], w)}
    adapted = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trained}
    assert changed
    assert changed <= {f"{name}.weight" for name in adapted}


def refused(model: str, folder: Path, objective: str) -> str:
    """Why `up` starts nothing, in this process."""
    settings = SETTINGS | {"model.name": model, "objective.name": objective}
    words = [f"--set={key}={value}" for key, value in settings.items()]
    done = CliRunner().invoke(app, ["up", "quickstart", "--run-dir", str(folder / "run"), *words])
    assert isinstance(done.exception, ConfigError), (done.exception, done.output)
    return str(done.exception)


def test_one_that_is_not_there_ends_before_anything_starts(
    small_model: str, tmp_path: Path
) -> None:
    said = refused(small_model, tmp_path, "examples.objective.ipo:Missing")
    assert "objective.name = 'examples.objective.ipo:Missing'" in said
    assert "has no attribute 'Missing'" in said


def test_one_that_compares_is_refused_where_the_scorer_gives_rewards(
    small_model: str, tmp_path: Path
) -> None:
    name = "tests.integration.comparing:Comparing"
    said = refused(small_model, tmp_path, name)
    assert f"objective.name = {name!r} needs preferences" in said
    assert "return a [K, K] matrix" in said
