"""Numbers with units."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sppo.scorer.math.quantity import Quantity, quantity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", Quantity(Fraction(12))),
        ("50%", Quantity(Fraction(50), percent=True)),
        ("12 apples", Quantity(Fraction(12))),
        ("5 cm", Quantity(Fraction(5), unit="cm")),
        ("5 meters^2", Quantity(Fraction(5), unit="m2")),
        ("5 square feet", Quantity(Fraction(5), unit="ft2")),
        ("$18.90", Quantity(Fraction(189, 10), unit="$")),
        (r"90^\circ", Quantity(Fraction(90), unit="°")),
        ("1 000", Quantity(Fraction(1000))),
        (r"0.1\overline{6}", Quantity(Fraction(1, 6))),
        ("twelve", Quantity(Fraction(12))),
    ],
)
def test_what_is_a_number(text: str, expected: Quantity) -> None:
    assert quantity(text) == expected


@pytest.mark.parametrize("text", ["x", "x = 5", "2, 3", "2x", "5-8", "June 20"])
def test_what_is_none(text: str) -> None:
    assert quantity(text) is None
