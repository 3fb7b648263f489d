"""The SPPO objective as pure functions on tensors.

Shape suffixes: T completion tokens of all sequences laid end to end, N completions, K completions of one group.
Groups are given as `group_ids_N`, any integers that are equal within a group; groups may differ in size.

    Δ_i      = Σ_t (log π_θ − log π_a)            over the tokens of completion i
    log ρ_i  = Σ_t (log π_a − log μ)
    residual = Δ_i − η A_i                                       targets with a partition (`softmean`)
    residual = δ_i − mean of δ over the group, δ_i = Δ_i − η s_i `centered`; the mean is detached
    loss     = Σ_i w_i residual_i² / (completions in the optimizer step)

Weights and group means are detached. Formulas and their sources: docs/objective.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTerms:
    """What one call of `sppo_loss` yields, all detached but `loss`."""

    loss: Tensor
    """Scalar; sums to the loss of the step over its micro-batches."""
    residual_N: Tensor
    delta_N: Tensor
    """Δ in nats."""
    target_N: Tensor
    """A, or the score minus its group mean for `centered`."""
    weight_N: Tensor
    clipped_N: Tensor
    """True where the weight met its cap."""
    log_rho_N: Tensor
    """log ρ in nats, over the sequence."""


def segment_sum(values_T: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Sums over consecutive segments: [T] and offsets [N + 1] to [N]."""
    lengths_N = cu_seqlens.diff()
    owner_T = torch.repeat_interleave(torch.arange(len(lengths_N), device=values_T.device), lengths_N)
    return torch.zeros(len(lengths_N), dtype=values_T.dtype, device=values_T.device).index_add(0, owner_T, values_T)


def group_mean(values_N: Tensor, group_ids_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Mean of each completion's group, weighted if weights are given: [N] to [N]."""
    _, index_N = torch.unique(group_ids_N, return_inverse=True)
    weights_N = torch.ones_like(values_N) if weights_N is None else weights_N
    groups = int(index_N.max()) + 1 if len(index_N) else 0
    zeros = torch.zeros(groups, dtype=values_N.dtype, device=values_N.device)
    total = zeros.index_add(0, index_N, weights_N * values_N)
    return (total / zeros.index_add(0, index_N, weights_N))[index_N]


def softmean_targets(scores_N: Tensor, group_ids_N: Tensor, weights_N: Tensor, *, eta: float) -> Tensor:
    """A_i = s_i − (1/η) log Σ_j w̃_j exp(η s_j), w̃ the group's weights normalised to 1. Paper eq. 4.4."""
    # Shifted by the group's largest score: exp can neither overflow nor vanish for the whole group.
    _, index_N = torch.unique(group_ids_N, return_inverse=True)
    lowest = torch.full((int(index_N.max()) + 1,), -torch.inf, dtype=scores_N.dtype, device=scores_N.device)
    top_N = lowest.scatter_reduce(0, index_N, scores_N, "amax")[index_N]
    mean_N = group_mean(torch.exp(eta * (scores_N - top_N)), group_ids_N, weights_N)
    return scores_N - top_N - mean_N.log() / eta


def no_weights(log_rho_N: Tensor, lengths_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """w = 1."""
    return torch.ones_like(log_rho_N), torch.zeros_like(log_rho_N, dtype=torch.bool)


def geometric_weights(log_rho_N: Tensor, lengths_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """w = ρ^(1/|y|) clipped to [1/cap, cap]: the per-token geometric mean, of bounded variance at any length."""
    ratio_N = torch.exp(log_rho_N / lengths_N)
    weight_N = ratio_N.clamp(1 / cap, cap)
    return weight_N, weight_N != ratio_N


WEIGHTS: dict[str, Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "none": no_weights,
    "geometric": geometric_weights,
}


def sppo_loss(
    logprob_T: Tensor,
    anchor_T: Tensor,
    behavior_T: Tensor,
    cu_seqlens: Tensor,
    scores_N: Tensor,
    group_ids_N: Tensor,
    *,
    eta: float,
    target: str,
    weight: str,
    cap: float,
    normalizer: int,
) -> LossTerms:
    """The loss of whole groups; `normalizer` is the number of completions in the optimizer step.

    `logprob_T` carries the gradient; everything else is data.
    """
    lengths_N = cu_seqlens.diff()
    delta_N = segment_sum(logprob_T - anchor_T, cu_seqlens)
    log_rho_N = segment_sum(anchor_T - behavior_T, cu_seqlens)
    weight_N, clipped_N = WEIGHTS[weight](log_rho_N, lengths_N, cap)
    if target == "centered":
        target_N = scores_N - group_mean(scores_N, group_ids_N)
        raw_N = delta_N - eta * scores_N
        residual_N = raw_N - group_mean(raw_N.detach(), group_ids_N)
    elif target == "softmean":
        target_N = softmean_targets(scores_N, group_ids_N, weight_N, eta=eta)
        residual_N = delta_N - eta * target_N
    else:
        raise ValueError(f"target {target!r}: expected 'centered' or 'softmean'")
    loss = (weight_N * residual_N**2).sum() / normalizer
    return LossTerms(
        loss=loss,
        residual_N=residual_N.detach(),
        delta_N=delta_N.detach(),
        target_N=target_N,
        weight_N=weight_N,
        clipped_N=clipped_N,
        log_rho_N=log_rho_N,
    )


def effective_sample_size(weights_N: Tensor) -> float:
    """(Σw)² / (N Σw²), the share of the completions that count: 1 when all weights are equal."""
    return float(weights_N.sum() ** 2 / (len(weights_N) * (weights_N**2).sum()))
