"""What `task.name` and `task.held_out` name, and the reader of each kind.

hf:<dataset or folder>[:<subset>][:<split>]   sppo/tasks/hub.py
parquet:<file>                                sppo/tasks/tables.py
jsonl:<file>, csv:<file>                      sppo/tasks/text.py
reasoning-gym:<dataset>                       sppo/tasks/procedural.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo.config import TaskConfig
from sppo.errors import ConfigError
from sppo.tasks import hub, procedural, tables, text
from sppo.tasks.rows import Row, Tally, Unusable, check_columns

FILES = ("parquet", "jsonl", "csv")
KINDS = ("hf", *FILES, "reasoning-gym")
WRITTEN = (
    "hf:<dataset or folder>[:<subset>][:<split>], parquet:<file>, jsonl:<file>, csv:<file> or "
    "reasoning-gym:<dataset>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source."""

    setting: str
    """For messages: `task.name = 'jsonl:train.jsonl'`."""
    kind: str
    """One of `KINDS`."""
    place: str
    """A file, a folder, or a data set's name with its subset and split."""
    weight: float = 1.0
    """Its share of the training prompts, beside the weights of the others."""
    params: Mapping[str, Any]
    """Arguments of a reasoning-gym dataset."""


def training(config: TaskConfig) -> list[Source]:
    """The sources of `task.name`, in its order. Raises ConfigError for one that is none."""
    if isinstance(config.name, str):
        return [_source("task.name", config.name, config.params)]
    return [
        _source(f"task.name[{i}].name", entry.name, entry.params, entry.weight)
        for i, entry in enumerate(config.name)
    ]


def held_out(config: TaskConfig) -> Source | None:
    """The source that is `task.held_out`; None where that is a number. Raises ConfigError."""
    if isinstance(config.held_out, int):
        return None
    return _source("task.held_out", config.held_out, config.params)


def read(source: Source, *, pool: int) -> tuple[list[Row], Tally]:
    """The rows whose columns can travel, and the count of the others.

    Raises ConfigError for a source that is not there, or that cannot be read.
    """
    tally = Tally(setting=source.setting)
    found = _rows(source, tally, pool)
    rows = []
    for row in found:
        try:
            check_columns(row.columns)
        except Unusable as error:
            tally.leave_out(row.where, error)
        else:
            rows.append(row)
    return rows, tally


def absent(source: Source) -> str:
    """What of a source is not on this disk, and the mend; empty if it is there.

    Looks, and reads nothing.
    """
    if source.kind == "hf":
        return hub.absent(source.place)
    if source.kind in FILES and not Path(source.place).is_file():
        return f"no file {source.place}; put it there, or name another"
    return ""


def _source(setting: str, name: str, params: Mapping[str, Any], weight: float = 1.0) -> Source:
    kind, _, place = name.partition(":")
    if kind not in KINDS or not place:
        raise ConfigError(f"{setting} = {name!r}: write it as {WRITTEN}")
    return Source(
        setting=f"{setting} = {name!r}", kind=kind, place=place, weight=weight, params=params
    )


def _rows(source: Source, tally: Tally, pool: int) -> list[Row]:
    """Every row that can be read; the others, and all, are counted."""
    if source.kind == "reasoning-gym":
        return procedural.read(source.place, source.params, pool, tally)
    if source.kind == "hf":
        return tables.rows(hub.load(source.place, source.setting), source.place, tally)
    path = Path(source.place)
    if source.kind == "parquet":
        return tables.rows(tables.parquet(path, source.setting), str(path), tally)
    return (text.jsonl if source.kind == "jsonl" else text.csv)(path, tally)
