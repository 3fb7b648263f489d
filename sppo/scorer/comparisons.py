"""Which completions of a group are compared with which, and what such answers add up to.

A comparison costs a call, so a judge may leave pairs out. What it did not compare is NaN in its
[K, K] matrix. What each way does to the estimate: docs/scorers/comparisons.md.

Shape suffix: K completions of one group.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Compare = Literal["all", "circular", "anchors", "reference"]
"""Every pair; each with the next few; each with the same few, drawn at random; each with an answer
from the data.
"""
COMPARE: tuple[Compare, ...] = get_args(Compare)
Pair = tuple[int, int]
"""Two positions in the group."""


def pairs(compare: Compare, k: int, *, opponents: int, uid: str) -> tuple[Pair, ...]:
    """The pairs (i, j), i < j, that are asked about; none of them for `reference`.

    `circular` has each completion meet the `opponents` that follow it, the last followed by the
    first. `anchors` draws so many of the completions by the group's `uid`, and has each meet all
    of these. Both connect the group, and neither looks at a text.
    """
    if opponents < 1:
        raise ValueError(f"opponents = {opponents} must be at least 1")
    found: set[Pair] = set()
    if compare == "all":
        found = {(i, j) for j in range(k) for i in range(j)}
    elif compare == "circular":
        steps = range(1, min(opponents, k - 1) + 1)
        found = {_ordered(i, (i + step) % k) for i in range(k) for step in steps}
    elif compare == "anchors":
        drawn = random.Random(f"anchors {uid}").sample(range(k), min(opponents, k))
        found = {_ordered(i, j) for j in drawn for i in range(k) if i != j}
    elif compare != "reference":
        raise ValueError(f"compare = {compare!r}: there are {', '.join(COMPARE)}")
    return tuple(sorted(found))


def both_orders(asked: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Each pair, and the same the other way round right behind it."""
    return tuple(ordered for i, j in asked for ordered in ((i, j), (j, i)))


def mean_of_orders(forward: float, backward: float) -> float:
    """The probability that one text beats another, of what a judge said of both orders: p(i, j) and
    p(j, i). The mean takes the effect of the position out.

    NaN stands for an order that was not asked or whose answer could not be read: the other one
    counts alone; NaN if neither is there.
    """
    read = [p for p in (forward, 1 - backward) if not math.isnan(p)]
    return sum(read) / len(read) if read else math.nan


def matrix(k: int, answers: Mapping[Pair, float]) -> NDArray[np.float32]:
    """[K, K] of what a judge said: `answers[i, j]` is the probability that i beats j, as it was
    shown them in this order. A pair counts as `mean_of_orders`; NaN where nothing was said.
    """
    found_KK = np.full((k, k), np.nan, np.float32)
    np.fill_diagonal(found_KK, 0.5)
    for i, j in {_ordered(*pair) for pair in answers}:
        said = mean_of_orders(answers.get((i, j), math.nan), answers.get((j, i), math.nan))
        found_KK[i, j] = said
        found_KK[j, i] = 1 - found_KK[i, j]
    return found_KK


def met(preferences_KK: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[K, K] True where two different completions were compared."""
    return ~np.isnan(preferences_KK) & ~np.eye(len(preferences_KK), dtype=np.bool_)


def fault(preferences_KK: NDArray[np.float32]) -> str | None:
    """Why a matrix with NaN on both sides of the diagonal cannot be used; None if it can.

    Win rates of completions of which no chain of comparisons tells are not of one scale. One that
    met nobody at all does no harm: it is left out.
    """
    met_KK = met(preferences_KK)
    there = [int(i) for i in np.flatnonzero(met_KK.any(1))]
    if not there:
        return "no two completions were compared"
    reached_K = np.zeros(len(met_KK), np.bool_)
    new_K = reached_K.copy()
    new_K[there[0]] = True
    while new_K.any():
        reached_K |= new_K
        new_K = met_KK[new_K].any(0) & ~reached_K
    apart = [i for i in there if not reached_K[i]]
    if not apart:
        return None
    return (
        f"no chain of comparisons leads from completion {there[0]} to completion {apart[0]}: "
        "compare more pairs"
    )


def _ordered(i: int, j: int) -> Pair:
    return (i, j) if i < j else (j, i)
