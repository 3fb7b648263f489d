"""[objective] by itself."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.config import ObjectiveConfig


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reject_low": 0.5}, "need reject = 'geometric' or 'token'"),
        ({"reject": "token", "reject_high": 0.5}, "reject_high = 0.5 must be at least 1"),
        ({"reject": "token", "reject_low": 1.5}, "less than or equal to 1"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": True}, "must be a number, not true or false"),
        ({"params": {"x": float("nan")}}, "x must be text, a finite number"),
        ({"params": {"x": [1]}}, "x must be text, a finite number"),
        ({"name": "rspo", "label": "pair"}, "label = 'pair' needs target = 'half'"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ObjectiveConfig(**settings)


def test_a_bound_of_rejection_is_the_modes_own_unless_it_is_given() -> None:
    assert ObjectiveConfig(reject="geometric").reject_bounds == (1 / 1.2, 1.2)
    assert ObjectiveConfig(reject="token", reject_high=3).reject_bounds == (0.5, 3)


@pytest.mark.parametrize(
    ("settings", "compares"),
    [
        ({"target": "half"}, True),
        ({"target": "half", "link": "bradley-terry"}, False),
        ({"name": "rspo", "target": "half"}, True),
        ({"name": "inpo", "label": "pair"}, True),
        ({"name": "inpo"}, False),
        ({"name": "grpo"}, False),
        ({"name": "dpo", "target": "half"}, False),
    ],
)
def test_comparisons_are_needed_where_a_target_is_made_of_them(
    settings: dict[str, Any], compares: bool
) -> None:
    assert ObjectiveConfig(**settings).needs_preferences is compares
