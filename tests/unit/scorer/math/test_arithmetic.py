"""Exact values, and forty digits."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sppo.scorer.math import arithmetic
from sppo.scorer.math.arithmetic import TooLarge

F = Fraction


def test_fractions_stay_exact() -> None:
    assert arithmetic.power(F(2, 3), F(-2)) == F(9, 4)
    assert arithmetic.power(F(4, 9), F(1, 2)) == F(2, 3)
    assert arithmetic.root(F(-8), F(3)) == -2
    assert arithmetic.binomial(F(5), F(2)) == 10
    assert arithmetic.factorial(F(30)) == 265252859812191058636308480000000
    assert not arithmetic.same(F(123456789012345678), F(123456789012345679))


def test_what_is_irrational_is_equal_to_28_digits() -> None:
    root = arithmetic.power(F(12), F(1, 2))
    assert arithmetic.same(root, arithmetic.multiply(F(2), arithmetic.power(F(3), F(1, 2))))
    assert not arithmetic.same(root, F(34641016151377546, 10**16))


def test_what_is_too_large_ends_at_once() -> None:
    for base, exponent in ((F(10), F(10**10)), (F(3, 2), F(99_999))):
        with pytest.raises(TooLarge):
            arithmetic.power(base, exponent)
    with pytest.raises(TooLarge):
        arithmetic.factorial(F(10**8))
