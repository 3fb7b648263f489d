"""Estimators beside published ones and scipy's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from sppo.evaluation import statistics


@pytest.mark.parametrize(("right", "n"), [(0, 1), (0, 7), (7, 7), (3, 11), (81, 200), (1, 5000)])
def test_the_interval_of_a_share_is_scipys(right: int, n: int) -> None:
    theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert statistics.wilson(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_interval_covers_the_truth_for_ties_and_probabilities_too() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        values = rng.choice([0.0, 0.5, 1.0, 0.8], p=[0.3, 0.2, 0.4, 0.1], size=60)
        low, high = statistics.wilson(float(values.mean()), 60)
        covered += low <= 0.58 <= high
    assert covered / 2000 >= 0.95


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 5), (9, 2), (2, 9), (130, 101)])
def test_the_sign_test_is_scipys(wins: int, losses: int) -> None:
    theirs = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert statistics.sign_test(wins, losses) == pytest.approx(theirs)


def test_pass_at_k_is_the_published_estimator() -> None:
    def published(n: int, c: int, k: int) -> float:
        """Chen et al. (2021), as a product that does not overflow."""
        return 1.0 if n - c < k else 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))

    for n in (1, 2, 5, 20, 200):
        for c, k in itertools.product({0, 1, n // 2, n}, {1, min(2, n), n}):
            assert statistics.pass_at_k(n, c, k) == pytest.approx(published(n, c, k), abs=1e-12)


def test_pass_at_k_is_the_mean_over_all_choices_of_k() -> None:
    right = [1, 1, 0, 0, 0, 0]
    choices = [any(chosen) for chosen in itertools.combinations(right, 3)]
    assert statistics.pass_at_k(6, 2, 3) == pytest.approx(sum(choices) / len(choices))


def test_the_most_frequent_answer_decides() -> None:
    assert statistics.majority(["4", "5", "4"], [True, False, True]) == 1
    assert statistics.majority(["5", "5", "4"], [False, False, True]) == 0
    assert statistics.majority(["5", "4", "5", "4"], [False, True, False, True]) == 0.5
    assert statistics.majority(["", "", "4"], [False, False, True]) == 1
    assert statistics.majority(["", ""], [False, False]) == 0


def test_a_win_rate_counts_ties_as_halves_and_leaves_out_what_was_not_compared() -> None:
    found = statistics.win_rate([1.0, 0.5, 0.0, 0.9, math.nan])
    assert found is not None
    assert found.rate == pytest.approx(0.6)
    assert (found.n, found.wins, found.ties, found.losses) == (4, 2, 1, 1)
    assert (found.low, found.high) == statistics.wilson(found.rate, 4)
    assert found.p == statistics.sign_test(2, 1)
    assert statistics.win_rate([math.nan]) is None


def test_with_equal_lengths_the_controlled_win_rate_is_the_plain_one() -> None:
    preferences = [1.0] * 140 + [0.0] * 60
    found = statistics.length_controlled(preferences, [0.0] * 200)
    assert found is not None
    assert found[0] == pytest.approx(0.7, abs=2e-3)
    assert found[1:] == pytest.approx(statistics.wilson(0.7, 200), abs=5e-3)


def test_a_win_by_length_alone_is_taken_out() -> None:
    # Given a judge that prefers the longer answer and a side that is usually longer
    rng = np.random.default_rng(1)
    longer = rng.normal(30, 30, 800)
    preferences = 1 / (1 + np.exp(-2 * np.tanh(longer / longer.std())))
    # When lengths are controlled for
    found = statistics.length_controlled(list(preferences), list(longer))
    # Then next to nothing is left of it
    assert preferences.mean() > 0.65
    assert found is not None
    assert found[0] == pytest.approx(0.5, abs=2e-3)


def test_it_stays_finite_where_one_side_always_wins_and_is_a_maximum() -> None:
    found = statistics.length_controlled([1.0] * 9, list(range(9)))
    assert found is not None
    assert 0.9 < found[0] < 1
    assert statistics.length_controlled([math.nan], [1.0]) is None
