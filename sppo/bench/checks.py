"""What every benchmark answers: figures, and checks against a bar that a person or a machine can
read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One figure against its bar."""

    name: str
    value: float
    unit: str
    bar: float
    ok: bool | None
    """None where the bar is meant for another machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One experiment: its check, and the numbers that its plot shows."""

    check: Check
    statement: str
    """What was to be shown, in one sentence."""
    series: Mapping[str, Any]


def unjudged(check: Check) -> Check:
    """The figure and its bar without a verdict."""
    return replace(check, ok=None)


def at_most(name: str, value: float, bar: float, unit: str) -> Check:
    """Holds if the value does not exceed the bar; NaN never holds."""
    return Check(name=name, value=value, unit=unit, bar=bar, ok=value <= bar)


def at_least(name: str, value: float, bar: float, unit: str) -> Check:
    """Holds if the value reaches the bar; NaN never holds."""
    return Check(name=name, value=value, unit=unit, bar=bar, ok=value >= bar)
