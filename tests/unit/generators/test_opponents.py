"""Whom an answer meets before the scorer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sppo.generators.opponents import BASE, both_orders, opponents
from sppo.types import Answer, Scores
from tests import makers


def test_only_an_answer_of_an_evaluation_by_comparison_meets_anybody() -> None:
    assert opponents(makers.ticket("eval-0"), [makers.completion([1])]) == []


def test_it_meets_itself_until_the_base_answer_is_known() -> None:
    own = makers.completion([4, 5])
    (met,) = opponents(makers.ticket("eval-0", paired=True), [own])
    assert met is own


def test_it_meets_the_base_models_answer() -> None:
    answer = Answer(token_ids=(7, 8, 9), text="seven", finish_reason="length")
    ticket = makers.ticket("eval-0", paired=True, against=answer)
    (met,) = opponents(ticket, [makers.completion([4])])
    assert (met.token_ids.tolist(), met.text, met.finish_reason) == ([7, 8, 9], "seven", "length")
    assert met.whole(BASE)
    assert len(met.behavior_logprobs) == 3


def test_both_orders_count_and_where_one_was_not_compared_the_other() -> None:
    first = np.array([[0.5, 0.8], [0.2, 0.5]], np.float32)
    turned = np.array([[0.5, 0.6], [0.4, 0.5]], np.float32)  # theirs, then ours
    unknown = np.array([[0.5, np.nan], [np.nan, 0.5]], np.float32)

    def mean(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        found = both_orders(Scores(preferences=a), Scores(preferences=b), 1).preferences
        assert found is not None
        return found

    assert mean(first, turned) == pytest.approx(np.array([[0.5, 0.6], [0.4, 0.5]]))
    assert mean(first, unknown) == pytest.approx(first)
    assert mean(unknown, turned) == pytest.approx(np.array([[0.5, 0.4], [0.6, 0.5]]))
    assert np.isnan(mean(unknown, unknown)[0, 1])
