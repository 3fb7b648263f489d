"""The SPPO objective as pure functions on tensors; one function per mode, one visible dict per family.

Shape suffixes: T completion tokens of all sequences laid end to end, N completions, K completions of one group, G
groups. `group_ids_N` are integers that are equal within a group; groups may differ in size.

    Δ_i      = Σ_t m_it (log π_θ − log π_a)                   over the tokens of completion i
    log ρ_i  = Σ_t m_it (log π_a − log μ)
    residual = Δ_i − η A_i                                    targets of `TARGETS`
    residual = δ_i − mean of δ over the group, δ_i = Δ_i − η s_i   `centered`; the mean is detached
    loss     = Σ_i w_i residual_i² / (completions in the optimizer step)

Weights and group means are detached. Formulas, their sources and which to choose: docs/objective.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# groups and segments ------------------------------------------------------------------------------------------------


def segment_sum(values_T: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Sums over consecutive segments: [T] and offsets [N + 1] to [N]."""
    owner_T = _owners(cu_seqlens)
    return torch.zeros(len(cu_seqlens) - 1, dtype=values_T.dtype, device=values_T.device).index_add(
        0, owner_T, values_T
    )


def sequence_log_ratios(
    logprob_T: Tensor, anchor_T: Tensor, behavior_T: Tensor, mask_T: Tensor | None, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(Δ [N], log ρ [N], length [N] in tokens), nats. Tokens with mask 0 count in none of them."""
    mask_T = torch.ones_like(logprob_T) if mask_T is None else mask_T.to(logprob_T.dtype)
    delta_N = segment_sum(mask_T * (logprob_T - anchor_T), cu_seqlens)
    log_rho_N = segment_sum(mask_T * (anchor_T - behavior_T), cu_seqlens)
    return delta_N, log_rho_N.detach(), segment_sum(mask_T, cu_seqlens)


def group_mean(values_N: Tensor, group_ids_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Mean of each completion's group, weighted if weights are given: [N] to [N]. A group's must not all be 0."""
    weights_N = torch.ones_like(values_N) if weights_N is None else weights_N
    total_N = _group_sum(weights_N * values_N, group_ids_N)
    return total_N / _group_sum(weights_N, group_ids_N)


def _owners(offsets: Tensor) -> Tensor:
    """Offsets [N + 1] to the segment of each element."""
    lengths_N = offsets.diff()
    return torch.repeat_interleave(torch.arange(len(lengths_N), device=offsets.device), lengths_N)


def _group_sum(values_N: Tensor, group_ids_N: Tensor) -> Tensor:
    """Sum over each completion's group: [N] to [N]."""
    ids_G, index_N = torch.unique(group_ids_N, return_inverse=True)
    return torch.zeros(len(ids_G), dtype=values_N.dtype, device=values_N.device).index_add(0, index_N, values_N)[
        index_N
    ]


def _members(group_ids_N: Tensor) -> list[Tensor]:
    """Positions of each group's completions, groups in the order in which they first appear."""
    _, index_N = torch.unique(group_ids_N, return_inverse=True)
    by_group_N = torch.argsort(index_N, stable=True)
    parts: list[Tensor] = list(torch.split(by_group_N, torch.bincount(index_N).tolist()))
    return sorted(parts, key=lambda members: int(members[0]))


# off-policy weights -------------------------------------------------------------------------------------------------


def no_weights(log_rho_N: Tensor, lengths_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """w = 1."""
    return torch.ones_like(log_rho_N), torch.zeros_like(log_rho_N, dtype=torch.bool)


def geometric_weights(log_rho_N: Tensor, lengths_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """w = ρ^(1/|y|) clipped to [1/cap, cap]: the per-token geometric mean, of bounded variance at any length."""
    log_ratio_N = log_rho_N / lengths_N.clamp(min=1)
    limit = math.log(cap)
    return log_ratio_N.clamp(-limit, limit).exp(), log_ratio_N.abs() > limit


def sequence_ratio_weights(log_rho_N: Tensor, lengths_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """w = min(ρ, cap): exact up to truncation; its variance grows with the length."""
    limit = math.log(cap)
    return log_rho_N.clamp(max=limit).exp(), log_rho_N > limit


def masked_weights(log_rho_N: Tensor, lengths_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """w = 1 where ρ^(1/|y|) lies in [1/cap, cap], else 0."""
    outside_N = (log_rho_N / lengths_N.clamp(min=1)).abs() > math.log(cap)
    return (~outside_N).to(log_rho_N.dtype), outside_N


WEIGHTS: dict[str, Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "none": no_weights,
    "geometric": geometric_weights,
    "sequence": sequence_ratio_weights,
    "masked": masked_weights,
}

CAPS = {"none": math.inf, "geometric": 1.2, "sequence": 2.0, "masked": 1.2}
"""Each mode's own cap, where the caller names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightStats:
    """What the weights of some completions look like."""

    weight_N: Tensor
    clipped_N: Tensor
    """True where the cap changed the weight (`masked`: where it made it 0)."""

    @property
    def mean(self) -> float:
        """Mean weight."""
        return float(self.weight_N.mean())

    @property
    def effective_sample_size(self) -> float:
        """See `effective_sample_size`."""
        return effective_sample_size(self.weight_N)

    @property
    def clipped_share(self) -> float:
        """Share of weights that the cap changed."""
        return float(self.clipped_N.double().mean())


def sequence_weights(
    mode: str, log_rho_N: Tensor, lengths_N: Tensor, *, cap: float | None = None
) -> tuple[Tensor, WeightStats]:
    """Off-policy weights w [N], detached, and their statistics. Raises ValueError for an unknown mode or a cap ≤ 1."""
    weight_N, clipped_N = _weights(mode, log_rho_N, lengths_N, cap)
    return weight_N, WeightStats(weight_N=weight_N, clipped_N=clipped_N)


def _weights(mode: str, log_rho_N: Tensor, lengths_N: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
    _known("weight", mode, WEIGHTS)
    cap = CAPS[mode] if cap is None else cap
    if not cap > 1:
        raise ValueError(f"cap = {cap}: must be greater than 1")
    return WEIGHTS[mode](log_rho_N.detach(), lengths_N, cap)


def normalized_weights(weights_N: Tensor | None, group_ids_N: Tensor) -> Tensor:
    """w̃ [N]: each group's weights scaled to sum 1; all equal without weights, and where a group's are all 0.

    Such a group takes no part in the loss, its w being 0; equal w̃ only keep its targets finite.
    """
    if weights_N is None:
        weights_N = torch.ones(len(group_ids_N), dtype=torch.float64, device=group_ids_N.device)
    empty_N = _group_sum(weights_N, group_ids_N) == 0
    weights_N = torch.where(empty_N, torch.ones_like(weights_N), weights_N)
    return weights_N / _group_sum(weights_N, group_ids_N)


def effective_sample_size(weights_N: Tensor) -> float:
    """(Σw)² / (N Σw²), the share of the completions that count: 1 when all weights are equal, 0 when all are 0."""
    squares = float((weights_N**2).sum())
    return float(weights_N.sum()) ** 2 / (len(weights_N) * squares) if squares else 0.0


# scores -------------------------------------------------------------------------------------------------------------


def bradley_terry(rewards_N: Tensor, group_ids_N: Tensor, *, temperature: float = 1.0) -> list[Tensor]:
    """P_ij = σ((r_i − r_j)/τ) for each group in order of appearance: scalars as preferences [K, K]."""
    parts = [rewards_N[members] for members in _members(group_ids_N)]
    return [torch.sigmoid((r_K[:, None] - r_K[None, :]) / temperature) for r_K in parts]


def win_rates(preferences: Sequence[Tensor], group_ids_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """P̂_i = Σ_j w̃_j P_ij over the group, itself included: the estimate of P(y_i ≻ π_a). Paper, section 4.

    Raises ValueError unless there is one [K, K] matrix for each group, in the order in which the groups appear.
    """
    groups = _members(group_ids_N)
    if len(preferences) != len(groups):
        raise ValueError(f"preferences: {len(preferences)} matrices for {len(groups)} groups")
    dtype = preferences[0].dtype if preferences else torch.float32
    normalized_N = normalized_weights(weights_N, group_ids_N).to(dtype)
    rates_N = torch.zeros(len(group_ids_N), dtype=dtype, device=group_ids_N.device)
    for members, matrix_KK in zip(groups, preferences, strict=True):
        if matrix_KK.shape != (len(members), len(members)):
            raise ValueError(f"preferences: shape {tuple(matrix_KK.shape)} for a group of {len(members)}")
        rates_N[members] = matrix_KK @ normalized_N[members]
    return rates_N


def compute_scores(
    *,
    group_ids_N: Tensor,
    rewards_N: Tensor | None = None,
    preferences: Sequence[Tensor] | None = None,
    weights_N: Tensor | None = None,
) -> Tensor:
    """s [N]: the rewards, or the win rates P̂ under w̃. Raises ValueError unless exactly one of both is given."""
    if (rewards_N is None) == (preferences is None):
        raise ValueError("scores are made of either rewards or preferences")
    if preferences is not None:
        return win_rates(preferences, group_ids_N, weights_N)
    assert rewards_N is not None
    return rewards_N


# targets ------------------------------------------------------------------------------------------------------------


def half_targets(scores_N: Tensor, group_ids_N: Tensor, weights_N: Tensor | None, eta: float) -> Tensor:
    """A = P̂ − 1/2: the log-partition of a win rate taken as η/2. Paper eq. 4.7."""
    return scores_N - 0.5


def softmean_targets(scores_N: Tensor, group_ids_N: Tensor, weights_N: Tensor | None, eta: float) -> Tensor:
    """A_i = s_i − (1/η) log Σ_j w̃_j exp(η s_j): the K-sample estimate of eq. 4.4's log-partition under π_a."""
    # In float64: a difference of logarithms divided by a small η. A weight of 0 becomes −inf and takes no part, and the
    # shift by the largest term cannot overflow.
    wide_N = scores_N.double()
    term_N = eta * wide_N + normalized_weights(weights_N, group_ids_N).double().log()
    ids_G, index_N = torch.unique(group_ids_N, return_inverse=True)
    lowest_G = torch.full((len(ids_G),), -torch.inf, dtype=wide_N.dtype, device=wide_N.device)
    top_N = lowest_G.scatter_reduce(0, index_N, term_N, "amax")[index_N]
    log_partition_N = top_N + _group_sum(torch.exp(term_N - top_N), group_ids_N).log()
    return (wide_N - log_partition_N / eta).to(scores_N.dtype)


def batch_softmean_targets(scores_N: Tensor, group_ids_N: Tensor, weights_N: Tensor | None, eta: float) -> Tensor:
    """One unweighted log-partition over the whole batch, as verl's recipe has it: give every group of the batch."""
    return softmean_targets(scores_N, torch.zeros_like(group_ids_N), None, eta)


TARGETS: dict[str, Callable[[Tensor, Tensor, Tensor | None, float], Tensor]] = {
    "half": half_targets,
    "softmean": softmean_targets,
    "batch_softmean": batch_softmean_targets,
}


def compute_targets(
    mode: str,
    *,
    eta: float,
    group_ids_N: Tensor,
    rewards_N: Tensor | None = None,
    preferences: Sequence[Tensor] | None = None,
    weights_N: Tensor | None = None,
) -> Tensor:
    """A [N] of one of `TARGETS` (`centered` needs none).

    `preferences` holds one [K, K] per group in the order of `group_ids_N`; `weights_N` are the off-policy weights w.
    Raises ValueError for an unknown mode, for `half` without preferences, and as `compute_scores` does.
    """
    _known("target", mode, TARGETS)
    if mode == "half" and preferences is None:
        raise ValueError("target 'half' subtracts 1/2 from a win rate: it needs preferences, not rewards")
    if mode == "batch_softmean":
        weights_N = None
    scores_N = compute_scores(
        group_ids_N=group_ids_N, rewards_N=rewards_N, preferences=preferences, weights_N=weights_N
    )
    return TARGETS[mode](scores_N, group_ids_N, weights_N, eta)


# selection and labels -----------------------------------------------------------------------------------------------


def select_all(scores_K: Tensor) -> Tensor:
    """Every completion."""
    return torch.ones_like(scores_K, dtype=torch.bool)


def select_best_worst(scores_K: Tensor) -> Tensor:
    """The best and the worst completion; of equal ones the first best and the last worst."""
    kept_K = torch.zeros_like(scores_K, dtype=torch.bool)
    kept_K[scores_K.argmax()] = True
    kept_K[len(scores_K) - 1 - int(scores_K.flip(0).argmin())] = True
    return kept_K


SELECTIONS: dict[str, Callable[[Tensor], Tensor]] = {"all": select_all, "best_worst": select_best_worst}


def select_completions(mode: str, scores_N: Tensor, group_ids_N: Tensor) -> Tensor:
    """[N] True for the completions that are trained. Raises ValueError for an unknown mode."""
    _known("select", mode, SELECTIONS)
    kept_N = torch.zeros_like(scores_N, dtype=torch.bool)
    for members in _members(group_ids_N):
        kept_N[members] = SELECTIONS[mode](scores_N[members])
    return kept_N


def pair_labels(scores_2: Tensor, matrix_22: Tensor | None) -> Tensor:
    """A_w = P_wl − 1/2 and A_l = P_lw − 1/2: the pair's own win probability (`sppo_single` of the paper's authors)."""
    if matrix_22 is None:
        raise ValueError("label 'pair' needs preferences, not rewards")
    return torch.stack([matrix_22[0, 1], matrix_22[1, 0]]) - 0.5


def hard_labels(scores_2: Tensor, matrix_22: Tensor | None) -> Tensor:
    """+1/2 for the better and −1/2 for the worse, 0 for a tie (`sppo_hard` of TRL)."""
    ahead_2 = scores_2 - scores_2.flip(0)
    return torch.where(ahead_2.abs() > TIE, torch.sign(ahead_2) / 2, 0.0)


TIE = 1e-6
"""Scores as close as this are equal: win rates are sums, which round."""

LABELS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {"pair": pair_labels, "hard": hard_labels}


def pair_targets(
    label: str,
    *,
    kept_N: Tensor,
    scores_N: Tensor,
    group_ids_N: Tensor,
    preferences: Sequence[Tensor] | None = None,
) -> Tensor:
    """A [N] of the two kept completions of each group (0 elsewhere), by one of `LABELS`.

    Raises ValueError unless `kept_N` holds two of each group.
    """
    _known("label", label, LABELS)
    targets_N = torch.zeros_like(scores_N)
    for g, members in enumerate(_members(group_ids_N)):
        pair_K = kept_N[members]
        if int(pair_K.sum()) != 2:
            raise ValueError(f"label {label!r} needs two completions of each group; select is to be 'best_worst'")
        matrix_22 = preferences[g][pair_K][:, pair_K] if preferences is not None else None
        targets_N[members[pair_K]] = LABELS[label](scores_N[members][pair_K], matrix_22).to(scores_N.dtype)
    return targets_N


# loss ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LossStats:
    """What the loss was made of, detached, for every completion it was given."""

    residual_N: Tensor
    delta_N: Tensor
    """Δ in nats, before any length normalisation."""
    target_N: Tensor
    """A; for `centered` the score minus its group's mean."""
    weight_N: Tensor
    clipped_N: Tensor
    """True where the cap changed the weight."""
    log_rho_N: Tensor
    """log ρ in nats, over the sequence."""
    length_N: Tensor


def sppo_loss(
    logprob_T: Tensor,
    anchor_T: Tensor,
    behavior_T: Tensor,
    mask_T: Tensor | None,
    cu_seqlens: Tensor,
    targets_N: Tensor,
    *,
    eta: float,
    group_offsets: Tensor | None = None,
    centered: bool = False,
    weight_mode: str = "none",
    cap: float | None = None,
    length_normalized: bool = False,
    normalizer: int | None = None,
) -> tuple[Tensor, LossStats]:
    """The loss of whole groups, a scalar that carries the gradient of `logprob_T` alone, and its statistics.

    `targets_N` are the A of `compute_targets`, or the scores s where `centered`. `group_offsets` [G + 1] are offsets
    into N; without them every completion is its own group. `normalizer` is the number of completions in the optimizer
    step, N by default. Raises ValueError for an unknown weight mode or a cap ≤ 1.
    """
    delta_N, log_rho_N, length_N = sequence_log_ratios(
        logprob_T, anchor_T.detach(), behavior_T.detach(), mask_T, cu_seqlens
    )
    weight_N, clipped_N = _weights(weight_mode, log_rho_N, length_N, cap)
    regressed_N = delta_N / length_N.clamp(min=1) if length_normalized else delta_N
    residual_N = regressed_N - eta * targets_N
    if centered:
        owner_N = _owners(group_offsets) if group_offsets is not None else torch.arange(len(targets_N))
        owner_N = owner_N.to(targets_N.device)
        residual_N = residual_N - group_mean(residual_N.detach(), owner_N)
        targets_N = targets_N - group_mean(targets_N, owner_N)
    loss = (weight_N * residual_N**2).sum() / (len(targets_N) if normalizer is None else normalizer)
    return loss, LossStats(
        residual_N=residual_N.detach(),
        delta_N=delta_N.detach(),
        target_N=targets_N,
        weight_N=weight_N,
        clipped_N=clipped_N,
        log_rho_N=log_rho_N,
        length_N=length_N,
    )


def kl_k3(logprob_T: Tensor, reference_T: Tensor) -> Tensor:
    """k3 = exp(d) − d − 1 ≥ 0 with d = log π_ref − log π_θ, nats a token.

    Its mean under π_θ is KL(π_θ ‖ π_ref) (Schulman, "Approximating KL Divergence"); its gradient under π_θ is that of
    KL(π_ref ‖ π_θ).
    """
    difference_T = reference_T.detach() - logprob_T
    return torch.exp(difference_T) - difference_T - 1


def _known(family: str, mode: str, modes: Mapping[str, Callable[..., object]]) -> None:
    if mode not in modes:
        raise ValueError(f"{family} {mode!r}: there are {', '.join(modes)}")
