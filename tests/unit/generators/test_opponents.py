"""Whom an answer meets before the scorer."""

from __future__ import annotations

from sppo.generators.opponents import BASE, opponents
from sppo.types import Answer
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
