"""Equality of answers, on a table of how people and models write them."""

from __future__ import annotations

import pytest

from sppo.scorer.math.compare import same
from sppo.scorer.math.extract import answer_of
from tests.unit.scorer.math.answers import ANSWERS, PHRASES


def nobody(reference: str, answer: str) -> bool:
    return False


@pytest.mark.parametrize(("reference", "right", "wrong"), ANSWERS)
def test_each_answer_in_each_phrase(reference: str, right: list[str], wrong: list[str]) -> None:
    for phrase in PHRASES:
        for want, answers in ((True, [reference, *right]), (False, wrong)):
            for answer in answers:
                if "$" in answer and ("$" in phrase or "**" in phrase):
                    continue
                text = phrase.format(answer)
                found = answer_of(text)
                assert (found is not None and same(reference, found, nobody)) == want, text


def test_what_is_left_is_asked_of_another() -> None:
    asked: list[tuple[str, str]] = []

    def yes(reference: str, answer: str) -> bool:
        asked.append((reference, answer))
        return True

    assert same(r"\int_0^1 f", r"\int_0^1 g", yes)
    assert not same("seven days", r"\int_0^1 g", yes)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("5", "5 or 6"),
        ("5", "not 5"),
        ("5", "less than 5"),
        ("5 m", "5 cm"),
        (r"\$5", "5 cents"),
        ("3", r"\boxed{3}, \boxed{4}"),
        ("1011_2", "1011_3"),
        ("4:30 p.m.", "4:30"),
        ("(1,2)", "1,2"),
        ("", ""),
    ],
)
def test_nobody_pays_for_these(reference: str, answer: str) -> None:
    assert not same(reference, answer, nobody)
