"""What trackers are given: figures by the names of metrics.jsonl, samples as rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sppo import samples as kept

NOT_FIGURES = frozenset({"step", "time", "tickets"})
"""Of a record of metrics.jsonl: the axes, and what nobody plots."""

COLUMNS = (
    "step", "why", "prompt", "completion", "score", "length", "finish_reason", "version",
    "generator", "details", "uid",
)  # fmt: skip
Row = tuple[int | float | str | None, ...]
"""Values of `COLUMNS`. `score`: the reward, or the mean preference over the others."""


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record of metrics.jsonl; those of a table as `scorer_counts/calls`."""
    return {
        name: value
        for name, value in _flat(record).items()
        if name not in NOT_FIGURES and math.isfinite(value)
    }


def evaluation(record: Mapping[str, Any]) -> dict[str, float]:
    """The same of an evaluation, as `eval/accuracy`; its 95 % interval as `eval/interval_low` and
    `eval/interval_high`.
    """
    low, high = record.get("interval") or (None, None)
    ends = {"interval_low": low, "interval_high": high}
    return {f"eval/{name}": value for name, value in figures({**record, **ends}).items()}


def rows(samples: Sequence[kept.Sample]) -> list[Row]:
    """A row for each completion."""
    return [_row(sample, i) for sample in samples for i in range(len(sample["completions"]))]


def _row(sample: kept.Sample, i: int) -> Row:
    details = sample["details"]
    return (
        sample["step"],
        ", ".join(sample["why"]),
        "\n\n".join(f"{each['role']}: {each['content']}" for each in sample["messages"]),
        sample["completions"][i],
        kept.scores(sample)[i],
        sample["lengths"][i],
        sample["finish_reasons"][i],
        ", ".join(sample["versions"][i]),
        sample["generator"],
        json.dumps(details[i]) if details else "",
        sample["uid"],
    )


def _flat(record: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, (bool, int, float)):
            found[name] = float(value)
        elif isinstance(value, dict):
            found |= {f"{name}/{key}": float(n) for key, n in value.items()}
    return found
