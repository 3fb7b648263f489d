"""What the broker or a scorer's request would not carry is found with its row."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.tasks import travel
from sppo.tasks.question import Question
from sppo.tasks.rows import Unusable


def question(answer: Any) -> Question:
    return Question(source="q", text="q", data={"answer": answer})


def test_plain_values_travel() -> None:
    travel.check(question({"x": [1, 2.5, None, "é"]}))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2**64, "cannot be sent"),
        (float("nan"), "cannot be sent"),
        ((1, 2), "does not come back"),
        ("\ud800", "cannot be sent"),
        ("x" * 17_000_000, r"17,0.* bytes with all its columns"),
    ],
)
def test_what_does_not_travel_is_said(value: Any, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        travel.check(question(value))
