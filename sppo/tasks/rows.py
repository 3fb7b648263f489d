"""Rows of a task as a source has them, and what becomes of those that cannot be used.

A row's columns reach the scorer as they are, so each must be something that MessagePack and JSON
both carry. A row that is not is left out and counted; the first is told with its place and column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sppo.errors import ConfigError

MAX_DEPTH = 100
"""Lists and objects inside one another in a column."""


class Unusable(ValueError):  # noqa: N818 - says what a row is, not that a run fails
    """Why one row cannot be used, without its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row."""

    where: str
    """For messages: `train.jsonl:17`, or `chain_sum, entry 17`."""
    columns: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Tally:
    """The rows of one source that are left out, and why the first of them is."""

    setting: str
    """The source, for messages: `task.name = 'jsonl:train.jsonl'`."""
    rows: int = 0
    """Rows of the source."""
    bad: int = 0
    first: str = ""

    def leave_out(self, where: str, why: object) -> None:
        """Count a row that cannot be used."""
        self.bad += 1
        self.first = self.first or f"{where}: {why}"

    def check(self) -> None:
        """Raises ConfigError where there is no row, or most rows cannot be used: then not a row is
        wrong, but what is expected of them.
        """
        if not self.rows:
            raise ConfigError(f"{self.setting}: holds no rows")
        if self.bad * 2 > self.rows:
            share = "none" if self.bad == self.rows else f"only {self.rows - self.bad}"
            raise ConfigError(
                f"{self.setting}: {share} of {self.rows} rows can be used; the first that cannot, "
                f"{self.first}"
            )


def check_columns(columns: Mapping[str, Any]) -> None:
    """Raises Unusable naming the column that cannot travel to a scorer."""
    for column, value in columns.items():
        if wrong := _unfit(column) or _unfit(value):
            raise Unusable(f"column {column!r}: {wrong}")


def column(columns: Mapping[str, Any], path: str, setting: str) -> Any:
    """The value at `path`: a column, or `column.field.field` within objects.

    Raises Unusable naming the setting, and the columns that there are.
    """
    if path in columns:
        return columns[path]
    found: Any = columns
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise Unusable(f"no column {path!r} ({setting}); there are {', '.join(columns)}")
        found = found[part]
    return found


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
