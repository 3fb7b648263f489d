"""trackio: in its own folder (TRACKIO_DIR), or on a Space or server that its variables name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trackio

from sppo.track.shape import COLUMNS, Row
from sppo.track.tracker import About

PROJECT = "sppo"


class Run:
    """See `sppo.track.tracker.Tracker`."""

    forgets = False

    def __init__(self, about: About) -> None:
        self._run = trackio.init(
            project=PROJECT, name=about.id, config=dict(about.config), resume="allow",
            embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def forget(self, step: int) -> None:
        """Not here."""
        raise AssertionError

    def figures(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        """As one entry."""
        self._run.log(dict(figures), step=step)

    def samples(self, step: int, time: float, stream: str, rows: Sequence[Row]) -> None:
        """As a table of this step."""
        table = trackio.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        self._run.log({f"samples/{stream}": table}, step=step)

    def flush(self) -> None:
        """Its own thread writes twice a second."""

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()
