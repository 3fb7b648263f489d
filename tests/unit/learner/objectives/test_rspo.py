"""`rspo`: the pull to the reference, by hand and on a policy that can be enumerated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sppo.learner.objectives import make
from tests.unit.learner.objectives import makers


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("target", ["centered", "softmean"])
def test_the_loss_is_that_of_sppo_and_half_the_weighted_squares(seed: int, target: str) -> None:
    batch = makers.random_batch(seed)
    gap = makers.summed(batch.logprob_T, batch.reference_T)
    _, stats = makers.evaluate(make(makers.settings(target=target)), batch)
    weight = stats["weight_N"].tolist()
    pull = sum(w * d * d for w, d in zip(weight, gap, strict=True)) / 2 / len(gap)
    plain = makers.value({"target": target}, batch)
    found = makers.value({"name": "rspo", "target": target, "reverse_kl_coef": 0.3}, batch)
    assert found == pytest.approx(plain + 0.3 * pull, rel=1e-12)


def test_the_pull_is_the_gradient_of_the_reverse_divergence() -> None:
    """Exactly, for completions of one token that the policy itself sampled: ∇KL(π_θ ‖ π_ref)."""
    torch.manual_seed(0)
    arms = 6
    theta_A = torch.randn(arms, dtype=torch.float64, requires_grad=True)
    log_reference_A = torch.randn(arms, dtype=torch.float64).log_softmax(-1)
    log_pi_A = theta_A.log_softmax(-1)
    (log_pi_A.exp() * (log_pi_A - log_reference_A)).sum().backward()  # type: ignore[no-untyped-call]
    assert theta_A.grad is not None
    wanted_A, theta_A.grad = theta_A.grad, None

    # With ρ = N π(a) the mean over the N arms is the expectation under the policy.
    log_pi_A = theta_A.log_softmax(-1)
    settings = {"weight": "sequence", "weight_cap": float(arms + 1), "reverse_kl_coef": 1.0}
    log_rho_A = log_pi_A.detach() + torch.log(torch.tensor(float(arms), dtype=torch.float64))
    batch = makers.random_batch()
    batch = replace(
        batch,
        logprob_T=log_pi_A,
        entropy_T=torch.zeros(arms, dtype=torch.float64),
        anchor_T=log_pi_A.detach(),
        behavior_T=log_pi_A.detach() - log_rho_A,
        reference_T=log_reference_A,
        cu_seqlens=torch.arange(arms + 1),
        group_offsets=torch.tensor([0, arms]),
        keep_N=torch.ones(arms, dtype=torch.bool),
        rewards_N=torch.zeros(arms, dtype=torch.float64),
        finished_N=torch.ones(arms, dtype=torch.bool),
        completions=arms,
    )
    objective = make(makers.settings(name="rspo", **settings))
    makers.evaluate(objective, batch)[0].backward()  # type: ignore[no-untyped-call]
    assert theta_A.grad is not None
    assert torch.allclose(theta_A.grad, wanted_A, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "softmean"},
        {"weight": "none"},
        {"target": "softmean", "kl_coef": 0.1, "kl_estimator": "k2"},
        {"target": "softmean", "reject": "token", "weight": "token"},
    ],
)
def test_the_gradient_agrees_with_finite_differences(changes: dict[str, Any]) -> None:
    objective = make(makers.settings(name="rspo", reverse_kl_coef=0.7, eta=2.0, **changes))
    assert makers.off_differences(objective, makers.random_batch(1)) < 1e-6


def test_the_fixed_point_is_a_geometric_mixture() -> None:
    """log π = (log π_a + η A + (λ/2) log π_ref) / (1 + λ/2) of each completion."""
    batch, eta, pull = makers.random_batch(2, compared=True), 2.0, 0.5
    assert batch.anchor_T is not None
    assert batch.reference_T is not None
    assert batch.preferences is not None
    lengths = torch.tensor(makers.LENGTHS)
    target_N = torch.cat([matrix.mean(1) for matrix in batch.preferences]) - 0.5
    target_T = torch.repeat_interleave(target_N / lengths, lengths)
    best_T = (batch.anchor_T + eta * target_T + pull / 2 * batch.reference_T) / (1 + pull / 2)
    settings = {"name": "rspo", "target": "half", "eta": eta, "weight": "none"}
    objective = make(makers.settings(**settings, reverse_kl_coef=pull))
    assert float(makers.gradient(objective, replace(batch, logprob_T=best_T)).norm()) < 1e-12


def test_groups_without_signal_are_pulled_too() -> None:
    batch = makers.random_batch(rewards_N=torch.zeros(9, dtype=torch.float64))
    objective = make(makers.settings(name="rspo"))
    assert not objective.select(makers.scored(batch)).idle_G.any()
    assert objective.needs == {"anchor", "reference"}
    _, stats = makers.evaluate(objective, batch)
    gap = makers.summed(batch.logprob_T, batch.reference_T)
    assert objective.summary(stats)["reverse_kl"] == pytest.approx(sum(gap) / len(gap))
