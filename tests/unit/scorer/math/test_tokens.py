"""Tokens of an expression."""

from __future__ import annotations

import pytest

from sppo.scorer.math.tokens import MOST, Unreadable, has_word, tokens


def test_tokens() -> None:
    assert tokens(r"2\frac{1}{x}") == ["2", "\\frac", "{", "1", "}", "{", "x", "}"]
    assert tokens("1,234 + .5") == ["1,234", "+", ".5"]
    assert tokens("x**2") == ["x", "^", "2"]
    assert tokens("2sqrt(3)") == ["2", "\\sqrt", "(", "3", ")"]


@pytest.mark.parametrize("text", ["1 000", "an apple", "1, 2", "x" * (MOST + 1), r"\{1\}", "1;2"])
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(Unreadable):
        tokens(text)


def test_letters_in_order_are_a_product_and_others_a_word() -> None:
    assert not has_word("2abc + xyz")
    assert has_word("odd")
    assert not has_word(r"\sin x")
