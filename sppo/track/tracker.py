"""What a tracker does, and which there are."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sppo.errors import ConfigError
from sppo.track.shape import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The run that is shown."""

    id: str
    """Its name among all runs, the same after a resume."""
    name: str
    config: Mapping[str, Any]
    """Settings by section, without secrets (`sppo.config.shown`)."""
    toml: str
    """The same as TOML."""
    run_dir: Path


class Tracker(Protocol):
    """One run in one tracker: begun when it is made, gone on with if it is there already.

    Any method may raise what its library raises.
    """

    forgets: bool
    """Whether `forget` takes back what was written. Where nothing can be taken back, steps that
    are trained again after a crash keep the figures of the first time.
    """

    def __init__(self, about: About) -> None: ...

    def forget(self, step: int) -> None:
        """This step and later ones were given up."""

    def figures(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        """Numbers of a step or evaluation, recorded at `time` (seconds since 1970)."""

    def samples(self, step: int, time: float, stream: str, rows: Sequence[Row]) -> None:
        """Completions of a step (`train`) or evaluation (`eval`), one a row."""

    def flush(self) -> None:
        """What was written is not lost if this process ends."""

    def close(self) -> None:
        """Nothing more comes for now."""


TRACKERS: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}
"""The packages that each imports."""


def make(name: str, about: About) -> Tracker:
    """Begin the run there, or go on with it."""
    module = importlib.import_module(f"sppo.track.{name}")
    tracker: Tracker = module.Run(about)
    return tracker


def check(names: Iterable[str]) -> None:
    """Raises ConfigError for a name that is none, and for one whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"tracker {name!r}: there are {', '.join(TRACKERS)}")
        if lacking := [p for p in TRACKERS[name] if importlib.util.find_spec(p) is None]:
            raise ConfigError(
                f"track.to names {name!r}, and {' and '.join(lacking)} is not installed: "
                f"pip install 'sppo[{name}]'"
            )
