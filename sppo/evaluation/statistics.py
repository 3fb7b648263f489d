"""What can be said from a sample of answers: intervals, tests and estimators, as pure functions.

N questions, K answers to each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEVEL_95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""
SLOPE_SD = 5.0
"""Standard deviation of the prior of both coefficients in `length_controlled`, in logits."""


def wilson(mean: float, n: int) -> tuple[float, float]:
    """The 95 % score interval (E. B. Wilson, 1927) of the mean of `n` values within [0, 1].

    For shares of yes and no it is the usual one. For values in between, such as probabilities and
    ties of 1/2, it is too wide rather than too narrow: none with this mean spreads more than zeros
    and ones. It needs n > 0.
    """
    z2 = LEVEL_95**2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = LEVEL_95 / (1 + z2 / n) * math.sqrt(mean * (1 - mean) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate of the probability that one of `k` answers is right, from `n` of which
    `correct` are: 1 − C(n − c, k) / C(n, k) (Chen et al., 2021, eq. 1). It needs k <= n.
    """
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority(answers: Sequence[str], right: Sequence[bool]) -> float:
    """Whether the most frequent of K answers is right; of several that are equally frequent, the
    share that is. Answers are equal as texts; an empty one does not vote.
    """
    votes = Counter(answer for answer in answers if answer)
    if not votes:
        return 0.0
    most = max(votes.values())
    verdict = dict(zip(answers, right, strict=True))
    winners = [answer for answer, count in votes.items() if count == most]
    return sum(verdict[answer] for answer in winners) / len(winners)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of the exact sign test: how surprising so uneven a split is if either side
    were as likely to win a question. Ties are left out. 1 without any.
    """
    n, most = wins + losses, max(wins, losses)
    tail = sum(math.comb(n, i) for i in range(most, n + 1))
    return min(1.0, 2 * tail / (1 << n))


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often one side's answers were preferred."""

    rate: float
    """Mean preference, ties as 1/2."""
    low: float
    high: float
    """95 % interval, see `wilson`."""
    n: int
    """Questions that were compared."""
    wins: int
    ties: int
    losses: int
    p: float
    """See `sign_test`."""


def win_rate(preferences: Sequence[float]) -> WinRate | None:
    """From [N] probabilities that our answer is preferred; NaN is left out. None without any."""
    known = [p for p in preferences if not math.isnan(p)]
    if not known:
        return None
    wins, losses = sum(p > 0.5 for p in known), sum(p < 0.5 for p in known)
    rate = sum(known) / len(known)
    low, high = wilson(rate, len(known))
    return WinRate(
        rate=rate, low=low, high=high, n=len(known),
        wins=wins, ties=len(known) - wins - losses, losses=losses, p=sign_test(wins, losses),
    )  # fmt: skip


def length_controlled(
    preferences: Sequence[float], longer: Sequence[float]
) -> tuple[float, float, float] | None:
    """The win rate that is expected where both answers are of the same length, with its 95 %
    interval: (rate, low, high). `longer` is how many tokens our answer is longer, [N].

    The idea of AlpacaEval 2 (Dubois et al., 2024) without its term for the difficulty of a
    question: a logistic regression P(win) = σ(a + b · tanh(d / s)) with d the difference of lengths
    and s its standard deviation, fitted to the preferences by cross-entropy with a normal prior of
    standard deviation `SLOPE_SD` on a and b, which keeps both finite where one side always wins.
    The figure is σ(a). The interval is that of a by the curvature at the optimum. NaN is left out;
    None without any.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    pairs = [(p, d) for p, d in zip(preferences, longer, strict=True) if not math.isnan(p)]
    if not pairs:
        return None
    p_N, d_N = np.asarray(pairs, np.float64).T
    spread = d_N.std()
    x_N2 = np.stack([np.ones_like(d_N), np.tanh(d_N / spread) if spread > 0 else 0 * d_N], axis=1)

    def loss(w_2: Any) -> tuple[float, Any]:
        z_N = x_N2 @ w_2
        value = np.logaddexp(0, z_N).sum() - p_N @ z_N + w_2 @ w_2 / (2 * SLOPE_SD**2)
        return float(value), x_N2.T @ (expit(z_N) - p_N) + w_2 / SLOPE_SD**2

    found = minimize(loss, np.zeros(2), jac=True, method="BFGS")
    q_N = expit(x_N2 @ found.x)
    curvature = (x_N2 * (q_N * (1 - q_N))[:, None]).T @ x_N2 + np.eye(2) / SLOPE_SD**2
    half = LEVEL_95 * math.sqrt(np.linalg.inv(curvature)[0, 0])
    a = float(found.x[0])
    return float(expit(a)), float(expit(a - half)), float(expit(a + half))
