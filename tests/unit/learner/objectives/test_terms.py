"""The estimators of the KL divergence, and the terms in the loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.learner.objectives import terms
from sppo.learner.objectives.terms import KL
from tests.unit.learner.objectives import makers

REFERENCE = torch.tensor([-0.5, -0.2, -4.0], dtype=torch.float64)


def at(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", KL)
def test_the_gradient_is_that_of_the_formula(name: str) -> None:
    assert torch.autograd.gradcheck(KL[name], (at([-1.0, -0.2, -3.0]), REFERENCE))


def test_values_with_a_calculator() -> None:
    """d = log π_ref − log π = 0.5: k1 = −0.5, k2 = 0.125, k3 = e^0.5 − 1.5 = 0.1487."""
    found = {name: float(kl(at([-1.0]).detach(), REFERENCE[:1])) for name, kl in KL.items()}
    assert found == pytest.approx({"k1": -0.5, "k2": 0.125, "k3": 0.14872}, abs=1e-5)


def test_k1_and_k3_are_unbiased_and_k2_has_the_gradient_of_the_divergence() -> None:
    torch.manual_seed(0)
    theta_A = torch.randn(7, dtype=torch.float64, requires_grad=True)
    log_reference_A = torch.randn(7, dtype=torch.float64).log_softmax(-1)
    log_pi_A = theta_A.log_softmax(-1)
    exact = (log_pi_A.exp() * (log_pi_A - log_reference_A)).sum()
    (wanted_A,) = torch.autograd.grad(exact, theta_A, retain_graph=True)
    pi_A = log_pi_A.detach().exp()
    for name in ("k1", "k3"):
        estimate = float((pi_A * KL[name](log_pi_A.detach(), log_reference_A)).sum())
        assert estimate == pytest.approx(float(exact.detach()))
    gradients = {
        name: torch.autograd.grad(
            (pi_A * kl(log_pi_A, log_reference_A)).sum(), theta_A, retain_graph=True
        )[0]
        for name, kl in KL.items()
    }
    assert torch.allclose(gradients["k2"], wanted_A)
    assert float(gradients["k1"].norm()) < 1e-12  # log π has no expected gradient
    assert not torch.allclose(gradients["k3"], wanted_A)


def test_k3_is_clamped_at_10_as_verl_does() -> None:
    """d is clamped at ±20 and the value at 10: e^3 − 4 = 16.1 is 10, and d = 30 is no overflow."""
    logprob_T = at([-3.0, -2.3, -90.0])
    found_T = KL["k3"](logprob_T, torch.zeros(3, dtype=torch.float64))
    assert found_T.tolist() == pytest.approx([10, math.exp(2.3) - 3.3, 10])
    found_T.sum().backward()  # type: ignore[no-untyped-call]
    assert logprob_T.grad is not None
    assert logprob_T.grad.tolist() == pytest.approx([0, 1 - math.exp(2.3), 0])
    assert float(KL["k3"](at([-1.0]).detach(), torch.tensor([-91.0]))) == 10


@pytest.mark.parametrize(
    ("changes", "present", "needs"),
    [
        ({}, False, set()),
        ({"kl_coef": 0.1}, True, {"reference"}),
        ({"entropy_coef": 1}, True, set()),
    ],
)
def test_when_there_is_a_term(changes: dict[str, Any], present: bool, needs: set[str]) -> None:
    settings = makers.settings(**changes)
    assert terms.present(settings) is present
    assert terms.needs(settings) == needs


def test_terms_are_added_with_the_weight_of_each_token() -> None:
    batch = makers.random_batch()
    assert batch.reference_T is not None
    weight_T = torch.rand(len(batch.logprob_T), dtype=torch.float64)
    settings = makers.settings(kl_coef=0.5, kl_estimator="k2", entropy_coef=0.25)
    found, figures = terms.add(torch.tensor(3.0), settings, batch, weight_T)
    kl_T = (batch.logprob_T - batch.reference_T) ** 2 / 2
    added = float((weight_T * (0.5 * kl_T - 0.25 * batch.entropy_T)).sum())
    assert float(found) == pytest.approx(3 + added)
    assert float(figures["kl_sum"]) == pytest.approx(float(kl_T.sum()))
    assert float(figures["kl_tokens"]) == len(kl_T)
