"""A number with what stands behind it: a percent sign, or a unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from sppo.scorer.math.spelled import spelled
from sppo.scorer.numbers import number

_PERCENT = re.compile(r"\s*(?:%|percent(?:age)?s?)\s*$", re.IGNORECASE)
_GROUPED = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?(?!\d)")
_CURRENCY = re.compile(r"^(-?)\s*(?:\\?\$|USD|US\\?\$)\s*")
_UNIT = re.compile(r"(?<![A-Za-z\\])([A-Za-z]+)(?:\s*\^\s*\{?\s*([23])\s*\}?)?\s*$")
_SQUARE = re.compile(r"\b(sq(?:uare)?|cu(?:bic)?)\.?\s+([A-Za-z]+)$", re.IGNORECASE)
_DEGREES = re.compile(r"\s*(?:\^\\circ|\bdegrees?\b)\s*[CF]?\s*$")

_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar)\{(\d{1,20})\}")
_NAMES = {
    "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters",
    "km": "km kilometer kilometers kilometre kilometres",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "s": "s sec second seconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "$": "dollar dollars usd",
    "cent": "cent cents",
    "l": "l liter liters litre litres",
    "ml": "ml milliliter milliliters",
    "mph": "mph",
    "rad": "rad radian radians",
}
UNITS = {word: unit for unit, words in _NAMES.items() for word in words.split()}
"""Each way to write a unit of which there are others for the same."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that was read exactly."""

    value: Fraction
    percent: bool = False
    unit: str = ""
    """The unit, where it is one of `UNITS`."""


def quantity(text: str) -> Quantity | None:
    """The number that a tidy text is; None if it is not exactly one."""
    if "=" in text:
        return None
    text = _REPEATING.sub(_repeated, text)
    bare = _PERCENT.sub("", text)
    percent = bare != text
    degrees = _DEGREES.sub("", bare)
    unit = "°" if degrees != bare else ""
    bare = degrees
    money = _CURRENCY.match(bare)
    if money:
        bare, unit = money[1] + bare[money.end() :], "$"
    if _GROUPED.match(bare.strip()):
        bare = re.sub(r"(?<=\d) (?=\d{3}(?!\d))", "", bare)
    value = number(bare.strip())
    if value is None and not re.search(r"\d", bare):
        whole = spelled(bare)
        value = None if whole is None else Fraction(whole)
    if value is None:
        return None
    return Quantity(value, percent, unit or _unit_of(bare))


def _repeated(found: re.Match[str]) -> str:
    """0.1666... as 1/6."""
    whole, fixed, again = found.groups()
    nines = 10 ** len(again) - 1
    value = Fraction(int((whole + fixed) or 0)) + Fraction(int(again), nines)
    value /= 10 ** len(fixed)
    return f"{value.numerator}/{value.denominator}"


def _unit_of(text: str) -> str:
    text = text.strip().rstrip(".")
    if square := _SQUARE.search(text):
        unit = UNITS.get(square[2].lower(), "")
        return unit and unit + ("2" if square[1].lower().startswith("sq") else "3")
    found = _UNIT.search(text)
    unit = UNITS.get(found[1].lower(), "") if found else ""
    return unit + (found[2] or "") if found and unit else ""
