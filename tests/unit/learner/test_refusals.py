"""What is said of refusals and dead letters, and when they end the run."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.errors import ScorerError, ScorerSpent
from sppo.learner.refusals import IN_A_ROW, DeadLetters, Refusals
from sppo.types import DeadLetter, Member


class Heard(list[dict[str, Any]]):
    def __call__(self, kind: str, **fields: Any) -> None:
        self.append({"kind": kind, **fields})


def letters(start: int, end: int) -> list[DeadLetter]:
    return [
        DeadLetter(uid=f"train-{i:09d}", stream="train", reason=f"scorer mine: no {i}")
        for i in range(start, end)
    ]


def test_each_dead_letter_is_told_once_with_its_reason() -> None:
    heard = Heard()
    dead = DeadLetters(heard)
    assert len(dead.note(letters(0, 2), said=True)) == 2  # an earlier life has told of them
    assert [n.uid for n in dead.note(letters(0, 4))] == ["train-000000002", "train-000000003"]
    assert dead.note(letters(0, 4)) == []
    assert heard == [
        {"kind": "dead", "uid": "train-000000002", "reason": "scorer mine: no 2"},
        {"kind": "dead", "uid": "train-000000003", "reason": "scorer mine: no 3"},
    ]
    assert "train-000000000" in dead
    assert dead.last == "train-000000003: scorer mine: no 3"


def test_many_in_a_row_and_none_scored_end_the_run_with_the_last_reason() -> None:
    dead = DeadLetters()
    dead.note(letters(0, IN_A_ROW - 1))
    with pytest.raises(
        ScorerError, match=rf"{IN_A_ROW} tickets in a row .* train-0*{IN_A_ROW - 1}: scorer mine"
    ):
        dead.note(letters(0, IN_A_ROW))


def test_a_group_that_is_scored_in_between_begins_the_count_again() -> None:
    dead = DeadLetters()
    for i in range(4):
        dead.note(letters(0, (i + 1) * (IN_A_ROW - 1)))
        dead.scored()
    # Groups are looked at before letters: those that came in one go may have come before the group
    dead.note(letters(0, 6 * IN_A_ROW))
    dead.note(letters(0, 7 * IN_A_ROW - 1))
    with pytest.raises(ScorerError):
        dead.note(letters(0, 7 * IN_A_ROW))


def test_what_an_earlier_life_gave_up_ends_nothing() -> None:
    DeadLetters().note(letters(0, 2 * IN_A_ROW), said=True)


def test_refusals_are_told_with_the_newest_reason_and_counted_over_generators() -> None:
    heard = Heard()
    refusals = Refusals(heard)

    def member(life: str, count: int) -> Member:
        name = f"generator-{life}"
        return Member(
            name=name,
            role="generator",
            life=life,
            refusals=count,
            refusal=f"train-7: scorer mine: no {count}",
        )

    refusals.hear([member("a", 0), member("b", 2)])
    refusals.hear([member("a", 0), member("b", 2)])
    refusals.hear([member("a", 1)])
    assert heard == [
        {
            "kind": "refusal",
            "uid": "train-7",
            "reason": "generator-b: scorer mine: no 2",
            "count": 2,
        },
        {
            "kind": "refusal",
            "uid": "train-7",
            "reason": "generator-a: scorer mine: no 1",
            "count": 1,
        },
    ]


def test_a_generator_whose_scorer_is_spent_ends_the_run_with_its_reason() -> None:
    spent = Member(name="generator-0", role="generator", life="a", spent="the limit is reached")
    with pytest.raises(ScorerSpent, match="the limit is reached"):
        Refusals(Heard()).hear([spent])
