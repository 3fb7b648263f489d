"""Which pairs are asked about, and what the answers add up to."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from sppo.scorer import comparisons
from sppo.scorer.comparisons import COMPARE, Compare, both_orders, fault, matrix, pairs

NAN = math.nan


def asked(
    compare: Compare, k: int, opponents: int = 1, uid: str = "u"
) -> tuple[tuple[int, int], ...]:
    return pairs(compare, k, opponents=opponents, uid=uid)


def test_all_is_every_pair() -> None:
    assert asked("all", 4) == tuple(combinations(range(4), 2))


def test_circular_meets_the_next_few() -> None:
    assert asked("circular", 5) == ((0, 1), (0, 4), (1, 2), (2, 3), (3, 4))
    assert asked("circular", 6, 2) == tuple(
        sorted((min(i, j), max(i, j)) for i in range(6) for j in ((i + 1) % 6, (i + 2) % 6))
    )


@pytest.mark.parametrize("compare", ["circular", "anchors"])
@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_as_many_opponents_as_there_are_is_every_pair(compare: Compare, k: int) -> None:
    assert asked(compare, k, k) == asked("all", k)


def test_anchors_meet_everyone_and_nobody_else_meets() -> None:
    found = asked("anchors", 8, 2)
    assert len(found) == 2 * 6 + 1
    times = Counter(i for pair in found for i in pair)
    assert sorted(times.values()) == [2] * 6 + [7] * 2


def test_anchors_are_the_same_for_one_group_and_drawn_anew_for_others() -> None:
    assert asked("anchors", 8, 2, "a") == asked("anchors", 8, 2, "a")
    drawn = Counter(
        i
        for n in range(4000)
        for i, times in Counter(i for p in asked("anchors", 8, 1, f"t{n}") for i in p).items()
        if times == 7
    )
    assert set(drawn) == set(range(8))
    assert all(abs(times - 500) < 100 for times in drawn.values())  # 500 ± 21


@pytest.mark.parametrize("k", [1, 2, 7])
def test_a_reference_asks_about_no_pair(k: int) -> None:
    assert asked("reference", k) == ()


@pytest.mark.parametrize("compare", [c for c in COMPARE if c != "reference"])
@pytest.mark.parametrize("k", [2, 3, 7, 16])
@pytest.mark.parametrize("opponents", [1, 2, 5, 99])
def test_what_is_asked_connects_the_group_once_a_pair(
    compare: Compare, k: int, opponents: int
) -> None:
    found = asked(compare, k, opponents)
    assert len(set(found)) == len(found) <= k * (k - 1) // 2
    assert all(0 <= i < j < k for i, j in found)
    assert fault(matrix(k, dict.fromkeys(found, 0.5))) is None


@pytest.mark.parametrize("compare", COMPARE)
def test_one_completion_has_no_opponent(compare: Compare) -> None:
    assert asked(compare, 1) == ()


def test_no_opponents_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="opponents = 0 must be at least 1"):
        asked("circular", 4, 0)
    with pytest.raises(ValueError, match="'most': there are all, circular, anchors, reference"):
        asked("most", 4)  # type: ignore[arg-type]


def test_both_orders_of_a_pair_stand_together() -> None:
    assert both_orders(((0, 1), (1, 2))) == ((0, 1), (1, 0), (1, 2), (2, 1))


def test_the_mean_of_both_orders_takes_the_position_out() -> None:
    # Given a judge that adds 0.2 to what is shown first
    found_KK = matrix(3, {(0, 1): 0.9, (1, 0): 0.5, (2, 1): 0.25})
    # Then the pair asked in both orders is without it, the other as it was answered
    wanted = [[0.5, 0.7, NAN], [0.3, 0.5, 0.75], [NAN, 0.25, 0.5]]
    np.testing.assert_allclose(found_KK, wanted, rtol=1e-6)
    assert found_KK[0, 1] + found_KK[1, 0] == 1


def test_an_answer_that_could_not_be_read_counts_for_nothing() -> None:
    found_KK = matrix(3, {(0, 1): 0.8, (1, 0): NAN, (0, 2): NAN, (2, 0): NAN, (1, 2): 1.0})
    np.testing.assert_allclose(found_KK, [[0.5, 0.8, NAN], [0.2, 0.5, 1], [NAN, 0, 0.5]], rtol=1e-6)
    assert comparisons.met(found_KK).tolist() == [
        [False, True, False],
        [True, False, True],
        [False, True, False],
    ]


def test_a_chain_is_enough_and_parts_are_not() -> None:
    chain = matrix(4, {(0, 1): 0.5, (1, 2): 0.5, (2, 3): 0.5})
    assert fault(chain) is None
    parts = matrix(5, {(0, 1): 0.5, (1, 4): 0.5, (2, 3): 0.5})
    assert fault(parts) == (
        "no chain of comparisons leads from completion 0 to completion 2: compare more pairs"
    )


def test_one_that_met_nobody_does_no_harm_unless_nobody_met() -> None:
    assert fault(matrix(4, {(1, 2): 1.0, (2, 3): 1.0})) is None
    assert fault(matrix(3, {(1, 2): NAN})) == "no two completions were compared"
