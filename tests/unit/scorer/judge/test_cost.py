"""Calls of a group are those that the judge makes."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.config import JudgeConfig
from sppo.scorer.judge import cost


@pytest.mark.parametrize(
    ("settings", "at_4", "at_8"),
    [
        ({}, 12, 56),
        ({"compare": "circular"}, 8, 16),
        ({"compare": "circular", "opponents": 2}, 12, 32),
        ({"compare": "anchors"}, 6, 14),
        ({"compare": "reference"}, 8, 16),
        ({"mode": "rating"}, 4, 8),
        ({"both_orders": False}, 6, 28),
        ({"samples": 3, "temperature": 1.0}, 36, 168),
    ],
)
def test_what_docs_say_a_group_costs(settings: dict[str, Any], at_4: int, at_8: int) -> None:
    judge = JudgeConfig(**settings)
    assert (cost.calls(judge, 4), cost.calls(judge, 8)) == (at_4, at_8)
