"""`sppo-cli replay`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sppo_cli import replay_command
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo.errors import ConfigError
from sppo.learner import replay
from tests import written_runs

FOUND: dict[str, Any] = {
    "step": 57, "from": "step-000040-aaaaaaaa", "steps_taken": 17, "compute": "float32",
    "recorded": True,
    "metrics": [
        {"name": "loss", "recorded": 0.5, "again": 0.5, "difference": 0.0, "same": True},
        {"name": "kl", "recorded": None, "again": None, "difference": None, "same": True},
        {"name": "delta_mean", "recorded": 0.1, "again": 0.2, "difference": 0.1, "same": False},
    ],
    "completions": [
        {"uid": "train-1", "completion": 0, "fed": True, "trained": True, "score": 1.0,
         "length": 12, "delta": 0.25, "weight": 1.0, "residual": -0.123456, "loss": 0.001},
        {"uid": "train-2", "completion": 0, "fed": False, "score": None, "length": 3},
    ],
    "others": {},
}  # fmt: skip


def test_what_differs_is_shown_and_every_completion() -> None:
    assert replay_command.lines(FOUND) == [
        "step 57 again, 17 steps from step-000040-aaaaaaaa, in float32",
        "",
        "2 of 3 figures are as they were recorded, but for rounding",
        "figure      recorded  again",
        "loss             0.5    0.5",
        "delta_mean       0.1    0.2  differs",
        "",
        "ticket      tokens  score  delta  weight  residual   loss",
        "train-1  0      12      1   0.25       1  -0.12346  0.001",
        "train-2  0       3      -      -       -         -      -",
        "1 of 2 completions did not go through the model: their groups have no gradient, or the "
        "objective left them out",
    ]


def test_a_step_without_a_record_says_so() -> None:
    assert "the step was not recorded" in replay_command.lines(FOUND | {"recorded": False})[2]


def test_the_command_asks_for_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(replay, "replay", lambda *given: asked.append(given) or FOUND)
    run = written_runs.make(tmp_path / "run", steps=2)
    done = CliRunner().invoke(app, ["replay", str(run), "--step", "57", "--json"])
    assert json.loads(done.stdout) == FOUND
    assert (asked[0][0], asked[0][1].name, asked[0][2]) == (run, "quickstart", 57)


def test_a_term_that_is_no_number_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a step that was skipped, for which NaN would be no JSON."""
    rows = [{"uid": "train-1", "loss": math.nan, "tokens": [1.0, math.inf]}]
    monkeypatch.setattr(replay, "replay", lambda *_: FOUND | {"completions": rows})
    run = written_runs.make(tmp_path / "run", steps=2)
    done = CliRunner().invoke(app, ["replay", str(run), "--step", "57", "--json"])
    found = json.loads(done.stdout)["completions"]
    assert found == [{"uid": "train-1", "loss": None, "tokens": [1.0, None]}]


def test_what_is_no_run_is_the_users_mistake(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["replay", str(tmp_path), "--step", "1"])
    assert isinstance(done.exception, ConfigError)
