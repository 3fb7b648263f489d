"""With a process in the place of a tracker's: what it says, and how it ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from sppo.launch import trackers

HEARS_ALL = "import sys; print('no network', flush=True); sys.stdin.read(); sys.exit({code})"
DEAF = "import time; time.sleep(60)"


def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> list[str]:
    (tmp_path / "logs").mkdir()
    warnings: list[str] = []
    monkeypatch.setattr(trackers, "command", lambda name, run_dir: [sys.executable, "-Sc", program])
    with trackers.beside(tmp_path, ["wandb", "wandb"], warnings.append):
        pass
    return warnings


def test_what_a_tracker_says_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = beside(tmp_path, monkeypatch, HEARS_ALL.format(code=0))
    assert said == [
        "wandb: no network; training goes on, and it is tried again (logs/track-wandb.log)"
    ]


@pytest.mark.parametrize("program", [HEARS_ALL.format(code=1), DEAF])
def test_what_is_missing_at_the_end_is_told_with_the_command_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(trackers, "LEAVE_S", 0.1 if program == DEAF else 30.0)
    said = beside(tmp_path, monkeypatch, program)
    assert said[-1] == (
        f"wandb has not got all of this run; the rest: sppo-cli track {tmp_path} --to wandb"
    )
    assert (tmp_path / "logs" / "track-wandb.log").exists()


def test_without_trackers_there_is_nothing(tmp_path: Path) -> None:
    with trackers.beside(tmp_path, [], lambda text: None):
        assert list(tmp_path.iterdir()) == []


def test_a_process_that_a_tracker_leaves_behind_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given one that has the pipe too, as a fork has
    program = "import os, sys, time\nos.fork() or time.sleep(20)\nsys.stdin.read()"
    monkeypatch.setattr(trackers, "LISTEN_S", 0.1)
    began = time.monotonic()
    beside(tmp_path, monkeypatch, program)
    assert time.monotonic() - began < 15


def test_no_setting_of_the_environment_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPPO_METRICS__TOKEN", "word")
    monkeypatch.setenv("WANDB_MODE", "offline")
    told = "print(os.environ.get('SPPO_METRICS__TOKEN'), os.environ['WANDB_MODE'], flush=True)"
    said = beside(tmp_path, monkeypatch, f"import os, sys; {told}; sys.stdin.read()")
    assert "wandb: None offline" in said[0]
