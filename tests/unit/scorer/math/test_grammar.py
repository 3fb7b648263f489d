"""Expressions as trees."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sppo.scorer.math.grammar import DEEPEST, Node, Reader
from sppo.scorer.math.tokens import Unreadable, tokens


def read(text: str) -> Node:
    return Reader(tokens(text)).sum()


def number(value: int) -> Node:
    return ("number", Fraction(value))


def test_trees() -> None:
    assert read("1+2") == ("+", number(1), number(2))
    assert read("-x^2") == ("-", ("^", ("name", "x"), number(2)))
    assert read(r"2\frac{1}{3}") == ("+", number(2), ("/", number(1), number(3)))
    assert read(r"2\frac{4}{3}") == ("*", number(2), ("/", number(4), number(3)))
    assert read("x_1") == ("name", "x_1") == read("x_{1}")
    assert read(r"\sin 2x") == ("call", "sin", ("*", number(2), ("name", "x")))
    assert read("2^3^2") == ("^", number(2), ("^", number(3), number(2)))
    assert read("|-3|") == ("abs", ("-", number(3)))


@pytest.mark.parametrize("text", ["1+", "(1", r"\frac12345", r"\unknown{1}", "(" * (DEEPEST + 1)])
def test_what_is_not_read(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)
