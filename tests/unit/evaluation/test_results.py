"""Figures over items, and the line of each."""

from __future__ import annotations

import math

import pytest

from sppo.evaluation import results, statistics
from sppo.evaluation.judging import Item
from sppo.types import Answer
from tests import makers


def answer(text: str, tokens: int = 4, *, cut: bool = False) -> Answer:
    reason = "length" if cut else "stop"
    return Answer(token_ids=(1,) * tokens, text=text, finish_reason=reason)  # type: ignore[arg-type]


def item(*rewards: float, texts: str = "") -> Item:
    ours = [answer(text) for text in (texts or "x" * len(rewards))]
    return Item(ticket=makers.ticket("eval-0"), ours=ours, rewards=list(rewards))


def test_one_answer_each_has_an_accuracy_and_no_more() -> None:
    found = results.figures([item(1.0), item(0.5), item(2.0), item(0.0)], k=1)
    assert (found["n"], found["failed"]) == (4, 0)
    assert found["accuracy"] == 0.5
    assert found["interval"] == list(statistics.wilson(0.5, 4))
    assert found["reward_mean"] == 0.875
    assert (found["pass_at"], found["majority"], found["against"]) == (None, None, None)
    assert (found["length_mean"], found["truncated_share"]) == (4, 0)


def test_several_answers_have_pass_and_majority() -> None:
    items = [item(1, 1, 0, texts="445"), item(0, 1, 0, texts="345"), item(0, 0, 0, texts="333")]
    found = results.figures(items, k=3)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["pass_at"] == pytest.approx({"1": 1 / 3, "2": (1 + 2 / 3 + 0) / 3, "3": 2 / 3})
    assert found["majority"] == pytest.approx((1 + 1 / 3 + 0) / 3)


@pytest.mark.parametrize(
    ("text", "comes_to"),
    [(r"so \boxed{ 1 / 2 }", "1/2"), ("the answer is 4.0", "4"), ("Paris  or\nso", "Paris or so")],
)
def test_an_answer_comes_to_its_box_its_number_or_its_text(text: str, comes_to: str) -> None:
    assert results.final(text) == comes_to


def test_items_that_were_not_scored_are_counted_apart() -> None:
    failed = Item(ticket=makers.ticket("eval-1"), ours=[answer("?", 8, cut=True)], error="no")
    found = results.figures([item(1.0), failed], k=1)
    assert (found["n"], found["failed"], found["accuracy"]) == (1, 1, 1.0)
    assert (found["length_mean"], found["truncated_share"]) == (6, 0.5)


def test_wins_are_counted_beside_the_length_controlled_figure() -> None:
    items = [
        Item(
            ticket=makers.ticket("eval-0"), ours=[answer("a", 3 + i)], theirs=[answer("b", 4)],
            preference=p,
        )
        for i, p in enumerate((1.0, 0.0, 1.0, 0.5, math.nan))
    ]  # fmt: skip
    items[1].order_matters = True
    found = results.figures(items, k=1)
    met = found["against"]
    assert found["accuracy"] is None
    assert (met["win_rate"], met["n"], met["unread"]) == (0.625, 4, 1)
    assert (met["wins"], met["ties"], met["losses"]) == (2, 1, 1)
    assert met["interval"] == list(statistics.wilson(0.625, 4))
    controlled = statistics.length_controlled([1.0, 0.0, 1.0, 0.5], [-1, 0, 1, 2])
    assert controlled is not None
    assert met["length_controlled"] == controlled[0]
    assert met["order_matters_share"] == 0.2
    assert (met["accuracy"], met["length_mean"]) == (None, 4)


def test_a_line_holds_everything_and_can_be_read_as_answers() -> None:
    one = item(1.0)
    one.theirs, one.their_rewards, one.preference = [answer("b")], [1.0], 0.5
    found = results.row(one)
    assert found["question"] == one.ticket.question
    assert found["completions"] == ["x"]
    assert (found["against"], found["preference"]) == (["b"], 0.5)
    one.preference, one.error = math.nan, "no"
    assert (results.row(one)["preference"], results.row(one)["error"]) == (None, "no")
