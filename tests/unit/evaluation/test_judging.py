"""What a scorer is asked about answers, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sppo.errors import ConfigError, ScorerError
from sppo.evaluation.judging import Item, judge
from sppo.types import Answer, ScoreRequest, Scores
from tests import makers


class Scorer:
    """Scores with a function of the texts."""

    closed = False

    def __init__(self, function: Callable[[Sequence[str]], Sequence[object]]) -> None:
        self._function = function

    async def score(self, request: ScoreRequest) -> Scores:
        values = np.asarray(self._function(request.completions), np.float32)
        told = [{"text": text} for text in request.completions]
        if values.ndim == 1:
            return Scores(rewards=values, details=told)
        return Scores(preferences=values, details=told)

    async def close(self) -> None:
        self.closed = True


def answers(*texts: str) -> list[Answer]:
    return [
        Answer(token_ids=(1,) * max(1, len(text)), text=text, finish_reason="stop")
        for text in texts
    ]


def item(ours: Sequence[str], theirs: Sequence[str] = ()) -> Item:
    return Item(ticket=makers.ticket("eval-0"), ours=answers(*ours), theirs=answers(*theirs))


def right(texts: Sequence[str]) -> list[float]:
    if "refuse" in texts:
        raise ScorerError("no")
    return [float(text == "4") for text in texts]


def longer(texts: Sequence[str]) -> list[list[float]]:
    n = [len(text) for text in texts]
    return [[0.5 if a == b else float(a > b) for b in n] for a in n]


def first(texts: Sequence[str]) -> list[list[float]]:
    return [[0.5, 0.9], [0.1, 0.5]]


def unread(texts: Sequence[str]) -> list[list[float]]:
    return [[0.5, math.nan], [math.nan, 0.5]]


def test_rewards_are_kept_and_decide_who_wins() -> None:
    items = [item(["4"], ["5"]), item(["5", "4"], ["4", "4"]), item(["4"])]
    scorer, told = Scorer(right), list[int]()
    assert not judge(items, scorer, told.append)
    assert [each.rewards for each in items] == [[1.0], [0.0, 1.0], [1.0]]
    assert [each.preference for each in items[:2]] == [1.0, 0.25]
    assert math.isnan(items[2].preference)
    assert items[0].details == [{"text": "4"}]
    assert sorted(told) == [1, 2, 3]
    assert scorer.closed


def test_a_comparison_is_asked_in_both_orders() -> None:
    items = [item(["long one"], ["short"]), item(["a", "bcd"], ["xx", "xx"])]
    assert judge(items, Scorer(longer), lambda n: None)
    assert [each.preference for each in items] == [1.0, 0.5]
    assert not items[0].order_matters
    items = [item(["a"], ["b"])]
    judge(items, Scorer(first), lambda n: None)
    assert items[0].preference == pytest.approx(0.5)
    assert items[0].order_matters


def test_what_cannot_be_decided_is_no_preference() -> None:
    items = [item(["a"], ["b"])]
    judge(items, Scorer(unread), lambda n: None)
    assert math.isnan(items[0].preference)
    assert items[0].error == ""


def test_a_scorer_that_compares_needs_somebody_to_compare_with() -> None:
    scorer = Scorer(longer)
    with pytest.raises(ConfigError, match="nobody to compare with: add --against base"):
        judge([item(["a"])], scorer, lambda n: None)
    assert scorer.closed


def test_an_item_that_is_refused_is_told_and_all_of_them_are_an_error() -> None:
    items = [item(["4"]), item(["refuse"])]
    judge(items, Scorer(right), lambda n: None)
    assert [each.error for each in items] == ["", "no"]
    with pytest.raises(ScorerError, match="no"):
        judge([item(["refuse"])] * 2, Scorer(right), lambda n: None)
