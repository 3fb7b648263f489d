"""Rows of a task as the source has them: a file of JSON lines, or a reasoning-gym dataset.

A row's columns reach the scorer as they are, so each must be something that MessagePack and JSON
both carry: what is not is refused here, by row and column.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo import strict_json
from sppo.config import TaskConfig, utf8
from sppo.errors import ConfigError

MAX_DEPTH = 100
"""Lists and objects inside one another in a column."""
_COMPRESSED = {b"\x1f\x8b": "compressed with gzip; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it",
               b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it",
               b"BZh": "compressed with bzip2; unpack it",
               b"PAR1": "a Parquet file; write it as JSON lines"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row."""

    where: str
    """For messages: `train.jsonl:17`, or `chain_sum, entry 17`."""
    columns: Mapping[str, Any]


def read(config: TaskConfig) -> list[Row]:
    """Every row of the task. Raises ConfigError for an unknown task, or with the row that cannot be
    used.
    """
    kind, _, name = config.name.partition(":")
    if kind == "reasoning-gym" and name:
        rows = _reasoning_gym(name, config)
    elif kind == "jsonl" and name:
        rows = list(_jsonl(Path(name)))
        if not rows:
            raise ConfigError(f"task.name = {config.name!r}: the file holds no rows")
    else:
        raise ConfigError(
            f"task.name = {config.name!r}: write it as reasoning-gym:<dataset> or jsonl:<file>"
        )
    for row in rows:
        for column, value in row.columns.items():
            if wrong := _unfit(column) or _unfit(value):
                raise ConfigError(f"{row.where}: column {column!r}: {wrong}")
    return rows


def kind(value: Any) -> str:
    """What JSON calls a value, for messages."""
    kinds = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
    }
    return kinds.get(type(value), "an object")


def _unfit(value: Any, depth: int = 0) -> str:
    """Why a JSON value cannot travel to a scorer; empty if it can."""
    if isinstance(value, str):
        return (
            ""
            if value.isascii() or _is_text(value)
            else "half of a surrogate pair, which is no character"
        )
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**64
        return "" if fits else f"the integer {value!s:.24} is beyond 64 bits; write it as text"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value} is no JSON number"
    if not isinstance(value, (list, dict)):
        return ""
    if depth >= MAX_DEPTH:
        return f"nested more than {MAX_DEPTH} deep"
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    return next((wrong for item in inner if (wrong := _unfit(item, depth + 1))), "")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _jsonl(path: Path) -> Iterator[Row]:
    if path.is_dir():
        raise ConfigError(f"task.name = 'jsonl:{path}': is a folder; name a file of JSON lines")
    if not path.is_file():
        raise ConfigError(
            f"task.name = 'jsonl:{path}': no such file; it is to hold {{\"question\": ..., "
            f'"answer": ...}} on each line'
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"task.name = 'jsonl:{path}' cannot be read: {error.strerror}") from error
    for magic, what in _COMPRESSED.items():
        if data.startswith(magic):
            raise ConfigError(f"task.name = 'jsonl:{path}': the file is {what}")
    for number, line in enumerate(utf8(data, str(path)).split("\n"), start=1):
        if not line.isspace() and line:
            yield Row(where=f"{path}:{number}", columns=_columns(f"{path}:{number}", line))


def _columns(where: str, line: str) -> dict[str, Any]:
    try:
        entry = strict_json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{where}: not JSON at column {error.colno}: {error.msg}; a line is one object"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: {kind(entry)}; a line is one object with question and answer")
    if missing := [name for name in ("question", "answer") if name not in entry]:
        raise ConfigError(
            f"{where}: no {' and no '.join(missing)}; needs the fields question and answer"
        )
    return entry


def _reasoning_gym(name: str, config: TaskConfig) -> list[Row]:
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ConfigError(f"task.name = {config.name!r} needs the package reasoning-gym")
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(name, size=config.pool, seed=7, **config.params)
    except ValueError as error:
        raise ConfigError(f"task.name = {config.name!r}: {error}") from error
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"task.params = {config.params}: {error}") from error
    # Through JSON: tuples and the like become plain types.
    plain = (json.loads(json.dumps(entry, default=str)) for entry in dataset)
    return [Row(where=f"{name}, entry {i}", columns=entry) for i, entry in enumerate(plain)]
