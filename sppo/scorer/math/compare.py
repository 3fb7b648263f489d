"""Whether an answer is the reference's: lists, pairs, intervals, matrices and equations part by
part, and their parts as numbers, texts or expressions.

It errs to "no": what may be read in two ways is not paid for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from sppo.scorer.math import shapes
from sppo.scorer.math.expression import equal
from sppo.scorer.math.normal import tidy
from sppo.scorer.math.quantity import Quantity, quantity
from sppo.scorer.math.text import as_choice, as_time, squeezed, words
from sppo.scorer.math.tokens import has_word

Symbolic = Callable[[str, str], bool]
"""What decides where none of this can: (reference, answer) -> whether they are equal."""
_OPERATORS = re.compile(
    r"\\(?:frac|sqrt|binom|cdot|times|div|star|circ|ast|log|ln|sin|cos|tan|pi|lfloor|rfloor|lceil|rceil)"
    r"(?![A-Za-z])"
)
DEEPEST = 4
MOST_PARTS = 60
MOST_WAYS = 4
"""Parts of the longest list that may be one value in several ways of writing."""


def same(reference: str, answer: str, symbolic: Symbolic) -> bool:
    """Whether an answer, as written, equals the reference, as written."""
    gold, found = tidy(reference), tidy(answer)
    if not gold or not found:
        return False
    return _Comparison(symbolic).same(gold, found, DEEPEST)


class _Comparison:
    def __init__(self, symbolic: Symbolic) -> None:
        self._symbolic = symbolic

    def same(self, gold: str, found: str, depth: int) -> bool:
        """Whether two tidy texts are equal."""
        if squeezed(gold) == squeezed(found):
            return True
        if depth == 0:
            return False
        for decide in (self._texts, self._based, self._numbers, self._shapes, self._equations):
            verdict = decide(gold, found, depth)
            if verdict is not None:
                return verdict
        return self._expressions(gold, found)

    def _texts(self, gold: str, found: str, depth: int) -> bool | None:
        """A letter of a choice, a time of day, or words."""
        choice = as_choice(gold)
        if choice and (other := as_choice(found, answering=True)):
            return choice == other
        time = as_time(gold)
        if time is not None and (stated := as_time(found)) is not None:
            return time == stated
        said = words(gold) if quantity(gold) is None else None
        return None if said is None else said == words(found)

    def _based(self, gold: str, found: str, depth: int) -> bool | None:
        """Digits of another base: 101_2, whose base may be left out in an answer."""
        wanted, other = shapes.based(gold), shapes.based(found)
        if wanted is None and other is None:
            return None
        if wanted is None or other is None:
            return wanted is not None and squeezed(found) == wanted[0]
        return wanted == other

    def _numbers(self, gold: str, found: str, depth: int) -> bool | None:
        a, b = quantity(gold), quantity(found)
        if a is not None and b is None and a.unit:
            b = quantity(shapes.without_letter(found, a.unit))
        if a is None or b is None:
            lists = (a is not None and "," in gold) or (b is not None and "," in found)
            return None if not lists else self._loose_lists(gold, found, depth)
        return _same_quantity(a, b) or (
            "," in gold + found and bool(self._loose_lists(gold, found, depth))
        )

    def _loose_lists(self, gold: str, found: str, depth: int) -> bool | None:
        """1,234 may be two numbers where the other side has two."""
        left, right = gold.split(","), found.split(",")
        if len(left) != len(right) or len(left) < 2:
            return None
        a, b = [quantity(x) for x in left], [quantity(x) for x in right]
        if any(x is None for x in (*a, *b)) or not (", " in gold or ", " in found):
            return None
        return sorted(x.value for x in a if x) == sorted(x.value for x in b if x)

    def _shapes(self, gold: str, found: str, depth: int) -> bool | None:
        """Matrices, intervals and their unions, pairs, sets and lists."""
        matrices = shapes.matrix(gold), shapes.matrix(found)
        if matrices[0] is not None or matrices[1] is not None:
            return self._matrices(*matrices, depth)
        gold, found = shapes.inside_set(gold), shapes.inside_set(found)
        left, right = shapes.union(gold), shapes.union(found)
        if len(left) > 1 or len(right) > 1:
            return self._unordered(left, right, depth)
        if (
            "<" in gold + found
            or "\\le" in gold + found
            or "\\ge" in gold + found
            or ">" in gold + found
        ):
            verdict = self._ranges(gold, found, depth)
            if verdict is not None:
                return verdict
        a, b = shapes.bracketed(gold), shapes.bracketed(found)
        if a and b:
            return a[0] == b[0] and self._ordered(a[1], b[1], depth)
        points = shapes.point(gold), shapes.point(found)
        if points[0] and points[1]:
            return self._ordered(points[0], points[1], depth)
        if a or b:
            return False if len((a or b or ("", []))[1]) > 1 else None
        return self._lists(gold, found, depth)

    def _lists(self, gold: str, found: str, depth: int) -> bool | None:
        set_a, set_b = shapes.elements(gold), shapes.elements(found)
        if set_a is None or set_b is None:
            return None
        if len(set_a) == 1 and len(set_b) == 1:
            return (
                None
                if (set_a[0], set_b[0]) == (gold, found)
                else self.same(set_a[0], set_b[0], depth - 1)
            )
        return self._unordered(set_a, set_b, depth)

    def _matrices(self, a: shapes.Matrix | None, b: shapes.Matrix | None, depth: int) -> bool:
        if a is None or b is None or a[0] != b[0] or len(a[1]) != len(b[1]):
            return False
        return all(self._ordered(x, y, depth) for x, y in zip(a[1], b[1], strict=True))

    def _ranges(self, gold: str, found: str, depth: int) -> bool | None:
        """Inequalities in one variable as intervals."""
        a, b = shapes.interval(gold), shapes.interval(found)
        if a is None or b is None or (a.name and b.name and a.name != b.name):
            return None
        return (
            a.brackets == b.brackets
            and self.same(a.low, b.low, depth - 1)
            and self.same(a.high, b.high, depth - 1)
        )

    def _ordered(self, gold: Sequence[str], found: Sequence[str], depth: int) -> bool:
        if len(gold) != len(found) or len(gold) > MOST_PARTS:
            return False
        return all(self.same(a, b, depth - 1) for a, b in zip(gold, found, strict=True))

    def _unordered(self, gold: Sequence[str], found: Sequence[str], depth: int) -> bool:
        if len(gold) != len(found) and max(len(gold), len(found)) <= MOST_WAYS:
            gold, found = (
                _distinct(parts, lambda a, b: self.same(a, b, depth - 1)) for parts in (gold, found)
            )
        if len(gold) != len(found) or len(gold) > MOST_PARTS:
            return False
        left = list(found)
        for wanted in gold:
            at = next((i for i, x in enumerate(left) if self.same(wanted, x, depth - 1)), None)
            if at is None:
                return False
            left.pop(at)
        return True

    def _equations(self, gold: str, found: str, depth: int) -> bool | None:
        """x = 5 for 5, and the last of a chain; two equations by their sides."""
        a, b = shapes.sides(gold), shapes.sides(found)
        if len(a) == 1 and len(b) == 1:
            return None
        names = shapes.is_name(a[0]), shapes.is_name(b[0])
        if len(b) > 1 and len(a) == 1:
            chained = names[1] or not re.search("[A-Za-z]", _OPERATORS.sub("", b[0]))
            return chained and self.same(gold, b[-1], depth - 1)
        if len(a) > 1 and len(b) == 1:
            return names[0] and self.same(a[-1], found, depth - 1)
        if all(names):
            return squeezed(a[0]) == squeezed(b[0]) and self.same(a[-1], b[-1], depth - 1)
        if len(a) == 2 and len(b) == 2 and _same_sides(a, b):
            return True
        return self._asked(gold, found)

    def _expressions(self, gold: str, found: str) -> bool:
        gold, found = shapes.without_unit(gold), shapes.without_unit(found)
        verdict = equal(gold, found)
        return self._asked(gold, found) if verdict is None else verdict

    def _asked(self, gold: str, found: str) -> bool:
        """What math-verify says; of the letters of prose it would make products."""
        return not has_word(gold) and not has_word(found) and self._symbolic(gold, found)


def _distinct(parts: Sequence[str], same: Callable[[str, str], bool]) -> list[str]:
    """Without what says the same in another way: of `15 39/40, 639/40` the first."""
    kept: list[str] = []
    for part in parts:
        if not any(squeezed(part) != squeezed(x) and same(x, part) for x in kept):
            kept.append(part)
    return kept


def _same_quantity(a: Quantity, b: Quantity) -> bool:
    """50% is 50 where a percentage is asked for, and 0.5; 5 m is not 5 cm."""
    if a.unit and b.unit and a.unit != b.unit:
        return False
    if a.percent == b.percent:
        return a.value == b.value
    percent, plain = (a, b) if a.percent else (b, a)
    return plain.value in (percent.value, percent.value / Fraction(100))


def _same_sides(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether two equations say the same with sides swapped, or all brought to one side."""
    x, y = (f"({side[0]})-({side[1]})" for side in (a, b))
    return equal(x, y) is True or equal(x, f"-({y})") is True
