"""Answers that are no mathematics."""

from __future__ import annotations

from sppo.scorer.math.text import as_choice, as_time, squeezed, words


def test_the_letter_of_a_choice() -> None:
    assert [as_choice(text) for text in ("B", "(b)", "AB", "K", "2")] == ["B", "B", "", "", ""]
    assert as_choice("(C) 42", answering=True) == "C" == as_choice("c. it is", answering=True)
    assert as_choice("(C) 42") == ""


def test_a_time_of_day() -> None:
    assert as_time("4:30 p.m.") == (4, 30, "p") == as_time("04:30 PM")
    assert as_time("16:30") == (16, 30, "")
    assert as_time("2:75") is None


def test_words() -> None:
    assert words("The Smith family") == ("smith", "family")
    assert words("x+1") is None
    assert words("ab") is None


def test_spaces_between_digits_stay() -> None:
    assert squeezed("x + 1") == "x+1"
    assert squeezed("1 2") == "1 2"
