"""Where a run is shown besides its own directory: trackers, and /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sppo.config import RunConfig
from sppo.launch import exposition, trackers
from sppo.launch.figures import Figures
from sppo.track import tracker


def check(config: RunConfig) -> None:
    """Raises ConfigError if a package for it is not installed."""
    tracker.check(config.track.to)
    exposition.check(config.metrics)


@contextmanager
def shown(
    config: RunConfig, run_dir: Path, figures: Figures, warn: Callable[[str], None]
) -> Iterator[None]:
    """Inside. `warn` gets a line about a tracker, from another thread."""
    with (
        exposition.served(config.metrics, run_dir, config.name, figures),
        trackers.beside(run_dir, config.track.to, warn),
    ):
        yield
