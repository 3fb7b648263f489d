"""Asking the learner of a running job for something, from its run directory."""

from __future__ import annotations

import tomllib
from pathlib import Path

from sppo import asked
from sppo.errors import ConfigError
from sppo.launch import run_dir as run_dirs

RESUME = "resume"
WHAT = (asked.PAUSE, RESUME, asked.CHECKPOINT, asked.EVALUATE)
WORDS = {
    asked.PAUSE: "after the batch at hand the learner takes no other, until it is asked to resume",
    RESUME: "the learner goes on",
    asked.CHECKPOINT: "a checkpoint is written after the batch at hand",
    asked.EVALUATE: "the held-out questions are answered after the batch at hand",
}


def request(run_dir: Path, what: str) -> str:
    """Ask; returns what will happen. Raises ConfigError for a wish that is none, and where nothing
    is running.
    """
    if what not in WHAT:
        raise ConfigError(f"{what!r}: ask for {', '.join(WHAT)}")
    run_dirs.describe(run_dir)
    if not run_dirs.alive(run_dir):
        raise ConfigError(f"{run_dir}: nothing is running")
    if what == asked.EVALUATE and not _questions(run_dir):
        raise ConfigError(
            f"{run_dir}: task.held_out = 0, so there are no questions to evaluate with; "
            "task.held_out = 200 in a run of its own has some"
        )
    if what == RESUME:
        asked.withdraw(run_dir, asked.PAUSE)
    else:
        asked.ask(run_dir, what)
    return WORDS[what]


def _questions(run_dir: Path) -> bool:
    """Whether the run has some held out."""
    settings = tomllib.loads((run_dir / "config.toml").read_text(encoding="utf-8"))
    return bool(settings.get("task", {}).get("held_out") != 0)
