"""A rule that does not return."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from sppo.scorer import base


def stuck(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """A rule that takes its time."""
    time.sleep(1.0)
    return [0.0] * len(completions)


@pytest.fixture
def slow_rule(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(base.SCORERS, "stuck", stuck)
    return "stuck"
