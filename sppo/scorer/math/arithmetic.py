"""Exact values where they are fractions, and forty digits where they are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath

from sppo.scorer.math.tokens import Unreadable

Value = Any
"""A Fraction, or an mpmath number of `DIGITS`."""
DIGITS = 40
CLOSE = mpmath.mpf(10) ** -28
MOST_BITS = 20_000
MOST_EXPONENT = 100_000
MOST_FACTORIAL = 1000

context = mpmath.mp.clone()
context.dps = DIGITS


class TooLarge(ArithmeticError):  # noqa: N818 - caught where it is read
    """A value that no answer has."""


def real(value: Value) -> Any:
    """As a number of mpmath."""
    if isinstance(value, Fraction):
        return context.mpf(value.numerator) / value.denominator
    return value


def add(a: Value, b: Value) -> Value:
    return a + b if _exact(a, b) else real(a) + real(b)


def multiply(a: Value, b: Value) -> Value:
    return small(a * b) if _exact(a, b) else real(a) * real(b)


def divide(a: Value, b: Value) -> Value:
    """Raises ZeroDivisionError."""
    return a / b if _exact(a, b) else real(a) / real(b)


def power(base: Value, exponent: Value) -> Value:
    """The principal value. Raises TooLarge, ZeroDivisionError."""
    if isinstance(exponent, Fraction):
        if abs(exponent) > MOST_EXPONENT:
            raise TooLarge
        if isinstance(base, Fraction) and exponent.denominator == 1:
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent) > MOST_BITS and abs(base) not in (0, 1):
                raise TooLarge
            return base**exponent.numerator
        if isinstance(base, Fraction) and exponent.denominator <= 12:
            exact = _root(base, exponent.denominator)
            if exact is not None:
                return power(exact, Fraction(exponent.numerator))
    elif abs(exponent) > MOST_EXPONENT:
        raise TooLarge
    return context.power(real(base), real(exponent))


def root(value: Value, degree: Value) -> Value:
    """The real root where there is one: the third root of -8 is -2."""
    odd = isinstance(degree, Fraction) and degree.denominator == 1 and degree.numerator % 2
    negative = odd and not isinstance(value, context.mpc) and value < 0
    if degree == 0:
        raise ZeroDivisionError
    inverse = divide(Fraction(1), degree)
    return -power(-value, inverse) if negative else power(value, inverse)


def factorial(value: Value) -> Value:
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        raise Unreadable("a factorial of no whole number")
    if value > MOST_FACTORIAL:
        raise TooLarge
    return Fraction(math.factorial(int(value)))


def binomial(n: Value, k: Value) -> Value:
    """Of any n, by its product; k is a whole number."""
    if not isinstance(n, Fraction) or not isinstance(k, Fraction) or k.denominator != 1 or k < 0:
        raise Unreadable("a binomial of no whole number")
    if k > MOST_FACTORIAL:
        raise TooLarge
    product = Fraction(1)
    for i in range(int(k)):
        product = small(product * (n - i) / (i + 1))
    return product


def absolute(value: Value) -> Value:
    return abs(value)


def function(name: str) -> Callable[[Value], Value]:
    """One of mpmath, of `DIGITS`."""
    apply = getattr(context, _NAMES.get(name, name))
    return lambda value: apply(real(value))


def same(a: Value, b: Value) -> bool:
    """Exactly, or to 28 digits."""
    if _exact(a, b):
        return bool(a == b)
    a, b = real(a), real(b)
    if not (context.isfinite(a) and context.isfinite(b)):
        return False
    return bool(abs(a - b) <= CLOSE * max(1, abs(a), abs(b)))


def small(value: Fraction) -> Fraction:
    """The value. Raises TooLarge."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_BITS:
        raise TooLarge
    return value


_NAMES = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "lg": "log10",
}  # fmt: skip


def _exact(a: Value, b: Value) -> bool:
    return isinstance(a, Fraction) and isinstance(b, Fraction)


def _root(value: Fraction, degree: int) -> Fraction | None:
    """The exact root of a fraction, if it has one."""
    if value < 0 or degree < 1:
        return None
    parts = []
    for whole in (value.numerator, value.denominator):
        if whole.bit_length() > 400:
            return None
        guess = int(context.nint(context.root(whole, degree)))
        if guess**degree != whole:
            return None
        parts.append(guess)
    return Fraction(parts[0], parts[1])
