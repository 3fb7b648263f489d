"""Weights & Biases: where and whether over the network say its own variables (WANDB_MODE=offline,
WANDB_PROJECT, WANDB_ENTITY, WANDB_API_KEY); its files are in RUN/wandb.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import wandb

from sppo.track.shape import COLUMNS, Row
from sppo.track.tracker import About


class Run:
    """See `sppo.track.tracker.Tracker`."""

    forgets = False

    def __init__(self, about: About) -> None:
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "sppo"),
            id=about.id, name=about.name, resume="allow", dir=str(about.run_dir),
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True,
                x_disable_stats=True,
            ),
        )  # fmt: skip
        self._run.config.update(dict(about.config), allow_val_change=True)
        self._run.define_metric("*", step_metric="step")

    def forget(self, step: int) -> None:
        """Not here."""
        raise AssertionError

    def figures(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        """As a line of the history; `step` is its axis."""
        self._run.log({"step": step, **figures})

    def samples(self, step: int, time: float, stream: str, rows: Sequence[Row]) -> None:
        """As a table of this step."""
        table = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        self._run.log({"step": step, f"samples/{stream}": table})

    def flush(self) -> None:
        """Its own process has it already."""

    def close(self) -> None:
        """Send what has not been sent."""
        self._run.finish()
