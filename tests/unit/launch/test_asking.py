"""Asking a running job, and being told where there is none."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sppo import asked
from sppo.errors import ConfigError
from sppo.launch import asking
from sppo.launch import run_dir as run_dirs


@pytest.fixture
def running(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text("")
    run_dirs.write_status(tmp_path, {"phase": "training"})
    return tmp_path


def test_a_wish_is_left_for_the_learner_and_a_pause_is_taken_back(running: Path) -> None:
    assert "takes no other" in asking.request(running, "pause")
    assert asked.standing(running) == ["pause"]
    assert asking.request(running, "resume") == "the learner goes on"
    assert asked.standing(running) == []


def test_only_what_there_is_can_be_asked_for(running: Path) -> None:
    with pytest.raises(ConfigError, match="'stop': ask for pause, resume, checkpoint, evaluate"):
        asking.request(running, "stop")


def test_nobody_is_asked_where_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        asking.request(tmp_path, "pause")
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(ConfigError, match="nothing is running"):
        asking.request(tmp_path, "pause")
    assert asked.standing(tmp_path) == []


@pytest.mark.parametrize(("age", "phase", "lives"), [
    (1, "training", True), (60, "training", False), (1, "done", False),
])  # fmt: skip
def test_a_run_on_another_machine_shows_itself_by_its_status(
    age: float, phase: str, lives: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("")
    status = {"phase": phase, "updated": time.time() - age, "pid": 2**22 + 1, "pid_created": 0}
    (tmp_path / "status.json").write_text(json.dumps(status))
    assert run_dirs.alive(tmp_path) == lives


def test_an_evaluation_without_questions_is_refused(running: Path) -> None:
    (running / "config.toml").write_text("[task]\nheld_out = 0\n")
    with pytest.raises(ConfigError, match=r"task\.held_out = 0, so there are no questions"):
        asking.request(running, "evaluate")
    assert asked.standing(running) == []
    (running / "config.toml").write_text("[task]\nheld_out = 8\n")
    asking.request(running, "evaluate")
    assert asked.standing(running) == ["evaluate"]
