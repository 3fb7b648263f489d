"""Whether two expressions are equal, by their values: exact fractions where they are such, forty
digits where they are not, at several points where there are variables.

What the grammar does not know is left to others.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from sppo.scorer.math import arithmetic
from sppo.scorer.math.arithmetic import TooLarge, Value, context
from sppo.scorer.math.grammar import Node, Reader
from sppo.scorer.math.tokens import Unreadable, tokens

POINTS = 4
"""Points at which both must have a value, and the same."""
TRIES = 12


def equal(a: str, b: str) -> bool | None:
    """Whether two expressions have the same value; None where either cannot be read here."""
    try:
        left, right = parsed(a), parsed(b)
    except Unreadable:
        return None
    names = sorted(_names(left) | _names(right))
    if len(names) > 8:
        return None
    agreed = 0
    for point in itertools.islice(_points(names), TRIES):
        try:
            if not arithmetic.same(_value(left, point), _value(right, point)):
                return False
        except TooLarge:
            return False
        except (ZeroDivisionError, ValueError, OverflowError):
            if not names:
                return None
            continue
        agreed += 1
        if agreed == POINTS or not names:
            return True
    return None


@lru_cache(4096)
def parsed(text: str) -> Node:
    """The expression as a tree. Raises Unreadable."""
    reader = Reader(tokens(text))
    tree = reader.sum()
    if reader.peek():
        raise Unreadable(reader.peek())
    return tree


def _points(names: list[str]) -> Any:
    """Values for the variables: fractions of both signs, the same for every pair of expressions."""
    rng = random.Random(20240501)
    while True:
        yield {
            name: Fraction(rng.choice((-1, 1)) * rng.randint(11, 97), rng.randint(7, 31))
            for name in names
        }


def _names(node: Node) -> set[str]:
    if node[0] == "name":
        return {node[1]}
    return set().union(*(_names(each) for each in node[1:] if isinstance(each, tuple)))


def _value(node: Node, point: Mapping[str, Value]) -> Value:
    """The value of a tree. Raises ZeroDivisionError, ValueError, OverflowError, TooLarge."""
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind == "name":
        return point[node[1]]
    if kind == "constant":
        return {"pi": +context.pi, "e": +context.e, "i": context.mpc(0, 1)}[node[1]]
    if kind == "call":
        return _call(node[1], _value(node[2], point), point, node)
    parts = [_value(each, point) for each in node[1:]]
    return _OPERATIONS[kind](*parts)


def _call(name: str, value: Value, point: Mapping[str, Value], node: Node) -> Value:
    if name == "log":
        base = _value(node[3], point)
        top, bottom = arithmetic.function("ln")(value), arithmetic.function("ln")(base)
        return arithmetic.divide(top, bottom)
    return arithmetic.function(name)(value)


_OPERATIONS: Mapping[str, Any] = {
    "+": arithmetic.add,
    "*": arithmetic.multiply,
    "/": arithmetic.divide,
    "^": arithmetic.power,
    "-": lambda value: -value,
    "root": arithmetic.root,
    "!": arithmetic.factorial,
    "binom": arithmetic.binomial,
    "abs": arithmetic.absolute,
}
