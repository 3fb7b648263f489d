"""Texts of answers made plain."""

from __future__ import annotations

import pytest

from sppo.scorer.math.normal import LONGEST, peeled, tidy


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"\tfrac{1}2", r"\frac{1}{2}"),
        (r"\left( 1,\, 2 \right)", "( 1, 2 )"),
        (r"$\text{(A)}$.", "A"),
        (r"1{,}000", "1,000"),
        (r"1\,000", "1,000"),
        ("４２", "42"),
        ("٤٢", "42"),
        ("x²≥3π", r"x^{2}\ge 3\pi"),
        (r"5\text{ m}^2", "5 meters ^2".replace(" ^", "^")),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"2\\pi", r"2\pi"),
        (r"a \\ \pi", r"a \newline \pi"),
        ("**42**", "42"),
    ],
)
def test_one_way_to_write_it(text: str, plain: str) -> None:
    assert tidy(text) == plain


def test_what_stands_around_the_whole_is_left_out_however_deep_it_is() -> None:
    assert peeled("(" * 5000 + "7" + ")" * 5000) == "7"
    assert peeled("{(1, 2)}") == "(1, 2)"
    assert peeled("((1, 2))") == "((1, 2))"
    assert peeled("(1)(2)") == "(1)(2)"


def test_what_is_too_long_for_an_answer_is_none() -> None:
    assert tidy("9" * (LONGEST + 1)) == ""
