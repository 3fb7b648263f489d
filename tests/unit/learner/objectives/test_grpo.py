"""`grpo` against TRL's and verl's clipped surrogate, restated in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from sppo.learner.objectives import make
from sppo.learner.objectives.grpo import advantages
from tests.unit.learner.objectives import makers


def by_hand(batch: makers.ObjectiveBatch, scores: list[float], *, low: float, high: float,
            weight: list[float], by_completion: bool) -> float:  # fmt: skip
    assert batch.anchor_T is not None
    policy, anchor, total = batch.logprob_T.tolist(), batch.anchor_T.tolist(), 0.0
    for members in makers.groups():
        mean = sum(scores[i] for i in members) / len(members)
        std = math.sqrt(sum((scores[i] - mean) ** 2 for i in members) / (len(members) - 1))
        for i in members:
            advantage, span = (scores[i] - mean) / (std + 1e-4), makers.spans()[i]
            for t in span:
                ratio = math.exp(policy[t] - anchor[t])
                bounded = min(max(ratio, 1 - low), 1 + high)
                gain = min(ratio * advantage, bounded * advantage)
                share = 1 / len(span) / 9 if by_completion else 1 / sum(makers.LENGTHS)
                total -= weight[i] * gain * share
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.05, 0.28)])
@pytest.mark.parametrize("by_completion", [False, True])
@pytest.mark.parametrize("weight", ["none", "geometric"])
def test_the_loss_is_the_formula(
    seed: int, low: float, high: float, by_completion: bool, weight: str
) -> None:
    batch = makers.random_batch(seed)
    assert batch.rewards_N is not None
    log_rho = makers.summed(batch.anchor_T, batch.behavior_T)
    w = [
        min(max(math.exp(r / n), 1 / 1.2), 1.2) if weight == "geometric" else 1.0
        for r, n in zip(log_rho, makers.LENGTHS, strict=True)
    ]
    wanted = by_hand(batch, batch.rewards_N.tolist(), low=low, high=high, weight=w,
                     by_completion=by_completion)  # fmt: skip
    changes: dict[str, Any] = {"name": "grpo", "clip_low": low, "clip_high": high}
    changes |= {"weight": weight, "length_normalize": by_completion}
    assert makers.value(changes, batch) == pytest.approx(wanted, rel=1e-12)


def test_win_rates_stand_in_for_rewards() -> None:
    batch = makers.random_batch(1, compared=True)
    assert batch.preferences is not None
    rates = [float(row.mean()) for matrix in batch.preferences for row in matrix]
    wanted = by_hand(batch, rates, low=0.2, high=0.2, weight=[1.0] * 9, by_completion=False)
    found = makers.value({"name": "grpo", "weight": "none"}, batch)
    assert found == pytest.approx(wanted, rel=1e-12)


def test_advantages_with_a_calculator() -> None:
    """Rewards 1, 0, 0: mean 1/3, unbiased std 0.57735."""
    rewards_N = torch.tensor([1.0, 0.0, 0.0, 4.0, 4.0, 9.0], dtype=torch.float64)
    found = advantages(rewards_N, torch.tensor([0, 0, 0, 1, 1, 2]))
    assert found.tolist() == pytest.approx([1.15450, -0.57725, -0.57725, 0, 0, 0], abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip_low": 0.01, "clip_high": 0.02},
        {"length_normalize": True, "kl_coef": 0.3},
        {"weight": "token", "reject": "token"},
        {"weight": "masked"},
    ],
)
def test_the_gradient_agrees_with_finite_differences(changes: dict[str, Any]) -> None:
    objective = make(makers.settings(name="grpo", **changes))
    assert makers.off_differences(objective, makers.random_batch(3)) < 1e-6


def test_on_its_own_anchor_it_is_a_policy_gradient() -> None:
    """−A_i / tokens for each token, whatever the bounds."""
    batch = makers.random_batch(4)
    batch = replace(batch, logprob_T=batch.anchor_T, own_anchor=True)
    assert batch.rewards_N is not None
    objective = make(makers.settings(name="grpo", weight="none"))
    ids_N = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    wanted_N = -advantages(batch.rewards_N, ids_N) / sum(makers.LENGTHS)
    wanted_T = torch.repeat_interleave(wanted_N, torch.tensor(makers.LENGTHS))
    # torch.minimum shares the gradient of a tie between equal sides
    assert torch.allclose(makers.gradient(objective, batch), wanted_T, rtol=1e-12)


def test_a_completion_stands_for_itself() -> None:
    batch = makers.random_batch(5)
    objective = make(makers.settings(name="grpo"))
    assert objective.scope == "completion"
    whole = makers.fed(batch, objective.select(makers.scored(batch)))
    parts = 0.0
    for i in range(9):
        alone = replace(whole, keep_N=torch.arange(9) == i).kept()
        parts += float(objective.loss(alone)[0])
    assert parts == pytest.approx(float(objective.loss(whole)[0]), rel=1e-12)


def test_the_summary_counts_tokens_at_a_bound() -> None:
    objective = make(makers.settings(name="grpo", clip_low=0.0, clip_high=0.0))
    _, stats = makers.evaluate(objective, makers.random_batch(6))
    found = objective.summary(stats)["surrogate_clipped_share"]
    assert found is not None
    assert 0.2 < found < 0.8
