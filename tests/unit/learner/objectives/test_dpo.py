"""`dpo` against TRL's sigmoid loss, restated in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sppo.learner.objectives import make
from tests.unit.learner.objectives import makers


def by_hand(batch: makers.ObjectiveBatch, scores: list[float], beta: float) -> float:
    gap, total = makers.summed(batch.logprob_T, batch.reference_T), 0.0
    for members in makers.groups():
        win = max(members, key=lambda i: (scores[i], -i))
        lose = min(members, key=lambda i: (scores[i], i))
        logit = beta * (gap[win] - gap[lose])
        total += -math.log(1 / (1 + math.exp(-logit))) / len(makers.SIZES)
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_loss_is_the_formula(seed: int, beta: float) -> None:
    batch = makers.random_batch(seed)
    assert batch.rewards_N is not None
    wanted = by_hand(batch, batch.rewards_N.tolist(), beta)
    assert makers.value({"name": "dpo", "beta": beta}, batch) == pytest.approx(wanted, rel=1e-12)


def test_comparisons_pick_the_pair_by_win_rate() -> None:
    batch = makers.random_batch(1, compared=True)
    assert batch.preferences is not None
    rates = [float(row.mean()) for matrix in batch.preferences for row in matrix]
    found = makers.value({"name": "dpo"}, batch)
    assert found == pytest.approx(by_hand(batch, rates, 0.1), rel=1e-12)


@pytest.mark.parametrize(
    "changes", [{}, {"kl_coef": 0.3, "entropy_coef": 0.2}, {"length_normalize": True}]
)
def test_the_gradient_agrees_with_finite_differences(changes: dict[str, float]) -> None:
    objective = make(makers.settings(name="dpo", beta=0.7, **changes))
    batch = makers.random_batch()
    if "entropy_coef" in changes:  # the entropy moves with nothing here
        batch = replace(batch, entropy_T=torch.zeros_like(batch.entropy_T))
    assert makers.off_differences(objective, batch) < 1e-6


def test_the_gradient_of_a_pair_is_the_published_one() -> None:
    """−β σ(−β h) for each token of the winner, its negative for the loser's; mean over pairs."""
    batch = makers.random_batch(2)
    assert batch.rewards_N is not None
    reward, gap = batch.rewards_N.tolist(), makers.summed(batch.logprob_T, batch.reference_T)
    wanted_T = torch.zeros_like(batch.logprob_T)
    for members in makers.groups():
        win, lose = max(members, key=reward.__getitem__), min(members, key=reward.__getitem__)
        pull = 0.5 / (1 + math.exp(0.5 * (gap[win] - gap[lose]))) / len(makers.SIZES)
        wanted_T[list(makers.spans()[win])] = -pull
        wanted_T[list(makers.spans()[lose])] = pull
    found_T = makers.gradient(make(makers.settings(name="dpo", beta=0.5)), batch)
    assert torch.allclose(found_T, wanted_T, rtol=1e-12)


def test_a_group_whose_scores_are_all_equal_has_no_pair() -> None:
    rewards_N = torch.tensor([1.0, 0, 5, 5, 5, 0, 1, 2, 3], dtype=torch.float64)
    batch = makers.random_batch(rewards_N=rewards_N)
    selection = make(makers.settings(name="dpo")).select(makers.scored(batch))
    assert selection.idle_G.tolist() == [False, True, False]
    assert selection.keep_N.nonzero().flatten().tolist() == [0, 1, 5, 8]
    loss, stats = makers.evaluate(make(makers.settings(name="dpo")), batch)
    assert len(stats["margin_P"]) == 2
    assert math.isfinite(float(loss))


def test_the_summary_tells_how_many_pairs_are_in_order() -> None:
    objective = make(makers.settings(name="dpo"))
    _, stats = makers.evaluate(objective, makers.random_batch(3))
    found = objective.summary(stats)
    right = (stats["margin_P"] > 0).double().mean()
    assert found["pair_accuracy"] == pytest.approx(float(right))
    assert found["weight_mean"] is None
    assert found["kl"] is None
