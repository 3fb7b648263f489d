"""Terms that any objective may add to its loss: a pull to the reference, and an entropy bonus.

Shape suffix: T completion tokens. Formulas and how they move the fixed point: docs/objective.md,
"Optional terms".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sppo.config import ObjectiveConfig
from sppo.learner.objectives.base import Need, ObjectiveBatch

EXPONENT, LARGEST = 20.0, 10.0
"""verl's bounds (`core_algos.kl_penalty`, `low_var_kl`) of k3's exponent and of its value."""


def kl_k1(logprob_T: Tensor, reference_T: Tensor) -> Tensor:
    """k1 = log π_θ − log π_ref. Its mean under π_θ is KL(π_θ ‖ π_ref); the mean of its gradient
    under π_θ is 0.
    """
    return logprob_T - reference_T.detach()


def kl_k2(logprob_T: Tensor, reference_T: Tensor) -> Tensor:
    """k2 = (log π_θ − log π_ref)² / 2 ≥ 0. A biased value; the mean of its gradient under π_θ is
    that of KL(π_θ ‖ π_ref).
    """
    return (logprob_T - reference_T.detach()) ** 2 / 2


def kl_k3(logprob_T: Tensor, reference_T: Tensor) -> Tensor:
    """k3 = exp(d) − d − 1 ≥ 0 with d = log π_ref − log π_θ, clamped at 10 as verl does.

    Its mean under π_θ is KL(π_θ ‖ π_ref) (Schulman, "Approximating KL Divergence"); its gradient
    under π_θ is that of KL(π_ref ‖ π_θ). Where the clamp acts the gradient is 0.
    """
    difference_T = (reference_T.detach() - logprob_T).clamp(-EXPONENT, EXPONENT)
    return (torch.exp(difference_T) - difference_T - 1).clamp(-LARGEST, LARGEST)


KL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}
"""Estimates of KL(π_θ ‖ π_ref) in nats a token, by `objective.kl_estimator`."""


def needs(settings: ObjectiveConfig) -> frozenset[Need]:
    """What the terms need of a batch."""
    return frozenset({"reference"}) if settings.kl_coef else frozenset()


def present(settings: ObjectiveConfig) -> bool:
    """Whether a group without signal has a gradient by a term."""
    return bool(settings.kl_coef or settings.entropy_coef)


def add(
    loss: Tensor, settings: ObjectiveConfig, batch: ObjectiveBatch, weight_T: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss with the terms, and their figures. `weight_T` is what each token counts in the mean
    over the whole mini-batch.
    """
    figures = {}
    if settings.kl_coef:
        assert batch.reference_T is not None
        kl_T = KL[settings.kl_estimator](batch.logprob_T, batch.reference_T)
        loss = loss + settings.kl_coef * (weight_T * kl_T).sum()
        figures["kl_sum"] = kl_T.detach().sum()
        figures["kl_tokens"] = kl_T.new_tensor(float(len(kl_T)))
    if settings.entropy_coef:
        loss = loss - settings.entropy_coef * (weight_T * batch.entropy_T).sum()
    return loss, figures
