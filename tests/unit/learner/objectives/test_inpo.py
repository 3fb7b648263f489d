"""`inpo` against the loss of its paper and COMAL's `nash_loss`, restated in plain Python."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from sppo.learner.objectives import make
from tests.unit.learner.objectives import makers


def by_hand(batch: makers.ObjectiveBatch, eta: float, kappa: float, *, soft: bool = False) -> float:
    """COMAL's nash_loss at its eta = 1/η and tau/eta = κ, winner first; the mean over a group's
    pairs, then over groups.
    """
    zero_T = torch.zeros_like(batch.logprob_T)
    log_pi = makers.summed(batch.logprob_T, zero_T)
    log_ref, log_last = (makers.summed(x, zero_T) for x in (batch.reference_T, batch.anchor_T))
    total = 0.0
    for g, members in enumerate(makers.groups()):
        pairs = list(itertools.combinations(members, 2))
        for i, j in pairs:
            if batch.rewards_N is not None:
                ahead = float(batch.rewards_N[i] - batch.rewards_N[j])
            else:
                assert batch.preferences is not None
                ahead = float(batch.preferences[g][i - members[0], j - members[0]]) - 0.5
            win, lose = (i, j) if ahead >= 0 else (j, i)
            goal = eta * abs(ahead) if soft else eta / 2 if ahead else 0.0
            chosen, rejected = (
                log_pi[y] - kappa * log_ref[y] - (1 - kappa) * log_last[y] for y in (win, lose)
            )
            total += (chosen - rejected - goal) ** 2 / len(pairs) / len(makers.SIZES)
    return total


PLAIN = {"name": "inpo", "weight": "none"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("eta", "kappa"), [(1.0, 0.0), (4.0, 0.25), (0.5, 1.0)])
@pytest.mark.parametrize("compared", [False, True])
def test_the_loss_is_the_formula(seed: int, eta: float, kappa: float, compared: bool) -> None:
    batch = makers.random_batch(seed, compared=compared)
    found = makers.value(PLAIN | {"eta": eta, "kappa": kappa}, batch)
    assert found == pytest.approx(by_hand(batch, eta, kappa), rel=1e-12)


def test_the_probability_itself_as_label() -> None:
    batch = makers.random_batch(5, compared=True)
    found = makers.value(PLAIN | {"eta": 3.0, "kappa": 0.5, "label": "pair"}, batch)
    assert found == pytest.approx(by_hand(batch, 3.0, 0.5, soft=True), rel=1e-12)


def test_a_tie_is_regressed_to_no_gap() -> None:
    batch = makers.random_batch(6, rewards_N=torch.tensor([1.0, 1, 0, 0, 1, 2, 2, 3, 3]).double())
    assert makers.value(PLAIN, batch) == pytest.approx(by_hand(batch, 1.0, 0.0), rel=1e-12)


def test_the_weight_of_a_pair_is_the_product_of_both() -> None:
    batch = makers.random_batch(7)
    _, stats = makers.evaluate(make(makers.settings(name="inpo")), batch)
    weight, residual = stats["weight_N"].tolist(), stats["residual_N"].tolist()
    wanted, p = 0.0, 0
    for members in makers.groups():
        pairs = list(itertools.combinations(members, 2))
        for i, j in pairs:
            wanted += weight[i] * weight[j] * residual[p] ** 2 / len(pairs) / 3
            p += 1
    assert makers.value({"name": "inpo"}, batch) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kappa": 0.3},
        {"select": "best_worst"},
        {"length_normalize": True},
        {"kl_coef": 0.2, "kappa": 0.3},
        {"weight": "token", "reject": "token"},
        {"reject": "geometric"},
    ],
)
def test_the_gradient_agrees_with_finite_differences(changes: dict[str, Any]) -> None:
    objective = make(makers.settings(**({"name": "inpo", "eta": 2.0} | changes)))
    assert makers.off_differences(objective, makers.random_batch(8)) < 1e-6


def test_the_minimiser_for_soft_labels_is_the_mirror_step() -> None:
    """Against a fixed opponent whose P_ij = 1/2 + (s_i − s_j)/2 the gaps of log π − κ log π_ref
    − (1 − κ) log π_a are η (s_i − s_j)/2.
    """
    batch = makers.random_batch(9)
    score_N = torch.rand(9, dtype=torch.float64)
    tables = tuple(0.5 + (s_K[:, None] - s_K) / 2 for s_K in torch.split(score_N, makers.SIZES))
    assert batch.reference_T is not None
    assert batch.anchor_T is not None
    share_N = score_N / torch.tensor(makers.LENGTHS)
    best_T = 0.25 * batch.reference_T + 0.75 * batch.anchor_T
    best_T = best_T + 1.5 * torch.repeat_interleave(share_N, torch.tensor(makers.LENGTHS))
    at = replace(batch, rewards_N=None, preferences=tables, logprob_T=best_T)
    objective = make(makers.settings(name="inpo", eta=3.0, kappa=0.25, label="pair"))
    assert float(makers.gradient(objective, at).norm()) < 1e-12


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({}, {"anchor"}),
        ({"kappa": 0.5}, {"anchor", "reference"}),
        ({"label": "pair"}, {"anchor", "preferences"}),
        ({"label": "pair", "link": "bradley-terry"}, {"anchor"}),
        ({"kl_coef": 0.1}, {"anchor", "reference"}),
    ],
)
def test_what_it_needs(changes: dict[str, Any], needs: set[str]) -> None:
    assert make(makers.settings(name="inpo", **changes)).needs == needs


def test_groups_without_a_pair_stay_out() -> None:
    finished_N = torch.tensor([True, False, True, True, True, True, True, True, True])
    batch = makers.random_batch(finished_N=finished_N)
    selection = make(makers.settings(name="inpo", truncated="mask")).select(makers.scored(batch))
    assert selection.keep_N.tolist() == [False, False, *[True] * 7]
    assert selection.idle_G.tolist() == [True, False, False]
