"""What answers say, in words and by log-probs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppo.scorer.judge.verdicts import Token, preference, rating


def token(text: str, **top: float) -> Token:
    return Token(text=text, top={name: math.log(p) for name, p in top.items()})


def tokens(text: str, top: Mapping[str, float]) -> list[Token]:
    return [Token(text=text, top={name: math.log(p) for name, p in top.items()})]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A", 1.0),
        ("B.", 0.0),
        (" **A**", 1.0),
        ("(B)", 0.0),
        ("C", 0.5),
        ("Tie", 0.5),
        ("[[B]]", 0.0),
        ("A: it is right", 1.0),
        ("A)\nbecause it is right", 1.0),
        ("A is better.", 1.0),
        ("B\n\nBecause A is wrong", 0.0),
        ("**Answer A** is right", 1.0),
        ("Option A", 1.0),
        ("Answer: B", 0.0),
        ("The better answer is A.", 1.0),
        ("My choice is answer B because it adds.", 0.0),
        ("I think answer B is clearly better.", 0.0),
        ("**Verdict:** **B**", 0.0),
        ("Verdict: tie", 0.5),
        ("A is short.\nB is long.\n\nFinal verdict: [[C]]", 0.5),
        ("<think>[[A]] or [[B]]? A.</think>\nB", 0.0),
        ("At first A seems right. Winner: B", 0.0),
    ],
)
def test_a_verdict_is_found(text: str, value: float) -> None:
    assert preference(text, []) == value


@pytest.mark.parametrize(
    "text",
    ["", "You should", "As an AI", "A better answer would be", "A and B are the same", "a", "D",
     "The answer is A good one", "<think>A", "Answer A's reasoning"],
)  # fmt: skip
def test_what_is_no_verdict_is_not_read(text: str) -> None:
    assert math.isnan(preference(text, []))


def test_probabilities_are_summed_over_what_means_the_same() -> None:
    top = {"A": 0.3, " A": 0.1, "**A": 0.1, "B": 0.2, " C": 0.1, "tie": 0.1, "The": 0.1, "a": 0.01}
    assert preference("A", tokens("A", top)) == pytest.approx((0.5 + 0.2 / 2) / 0.9)


def test_they_are_those_of_the_place_where_the_verdict_stands() -> None:
    said = [token("Verdict", A=0.9), token(": [[", A=0.9), token("B", A=0.25, B=0.75), token("]]")]
    assert preference("Verdict: [[B]]", said) == pytest.approx(0.25)


def test_an_answer_that_says_no_verdict_is_read_from_its_first_place_if_there_is_enough() -> None:
    assert preference("You", tokens("You", {"You": 0.6, "A": 0.3, "B": 0.1})) == pytest.approx(0.75)
    assert math.isnan(preference("You", tokens("You", {"You": 0.95, "A": 0.04})))
    assert math.isnan(preference("A and B are", tokens("A", {"A": 0.9})))  # the text's beginning


def test_a_verdict_without_log_probs_of_its_own_is_taken_as_it_is() -> None:
    assert preference("A", tokens("A", {"The": 0.9})) == 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7.0),
        ("9.", 9.0),
        ("7/10", 7.0),
        ("8 out of 10", 8.0),
        ("I rate it 5, of 10", 5.0),
        ("It has 3 errors. [[6]] of 9", 6.0),
        ("Rating: 7.5.", 7.5),
        ("-2", -2.0),
        ("<think>1 2 3</think>4", 4.0),
    ],
)
def test_a_rating_is_found(text: str, value: float) -> None:
    assert rating(text, []) == value


@pytest.mark.parametrize("text", ["", "ten", "100%", "1,000", "v2"])
def test_what_is_no_rating_is_not_read(text: str) -> None:
    assert math.isnan(rating(text, []))


def test_a_rating_of_one_digit_is_the_mean_over_digits() -> None:
    assert rating("7", tokens("7", {"7": 0.5, " 9": 0.3, "1": 0.1, "x": 0.1})) == pytest.approx(
        (3.5 + 2.7 + 0.1) / 0.9
    )
    assert rating("75", tokens("75", {"75": 0.5, "9": 0.5})) == 75.0


def test_no_answer_takes_long_to_read() -> None:
    begun = time.monotonic()
    for part in (" ", "\n", "answer:", "answer ", "[[", "**", "1 ", "1,", "<think>", "verdict is "):
        preference(part * 20_000, [])
        rating(part * 20_000, [])
    assert time.monotonic() - begun < 5


@settings(max_examples=50)
@given(st.text(alphabet="ABCtie []*:.\nanswer1", max_size=60))
def test_any_text_gives_a_probability_or_none(text: str) -> None:
    value = preference(text, [])
    assert math.isnan(value) or value in (0.0, 0.5, 1.0)
    assert isinstance(rating(text, []), float)
