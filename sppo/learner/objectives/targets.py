"""What the SPPO loss is aimed at, as pure functions on tensors: scores, targets, selection, labels.

Shape suffixes: T completion tokens, N completions, K completions of one group, G groups.
`group_ids_N` are integers that are equal within a group; groups may differ in size.

One function per mode, one visible dict per family. The loss itself and the off-policy weights w are
in `sppo.kernels`. Formulas, their sources and which to choose: docs/objective.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

# groups -------------------------------------------------------------------------------------------


def group_mean(values_N: Tensor, group_ids_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Mean of each completion's group, weighted if weights are given: [N] to [N]. A group's must
    not all be 0.
    """
    weights_N = torch.ones_like(values_N) if weights_N is None else weights_N
    total_N = _group_sum(weights_N * values_N, group_ids_N)
    return total_N / _group_sum(weights_N, group_ids_N)


def _group_sum(values_N: Tensor, group_ids_N: Tensor) -> Tensor:
    """Sum over each completion's group: [N] to [N]."""
    ids_G, index_N = torch.unique(group_ids_N, return_inverse=True)
    return torch.zeros(len(ids_G), dtype=values_N.dtype, device=values_N.device).index_add(
        0, index_N, values_N
    )[index_N]


def _members(group_ids_N: Tensor) -> list[Tensor]:
    """Positions of each group's completions, groups in the order in which they first appear."""
    _, index_N = torch.unique(group_ids_N, return_inverse=True)
    by_group_N = torch.argsort(index_N, stable=True)
    parts: list[Tensor] = list(torch.split(by_group_N, torch.bincount(index_N).tolist()))
    return sorted(parts, key=lambda members: int(members[0]))


def normalized_weights(weights_N: Tensor | None, group_ids_N: Tensor) -> Tensor:
    """w̃ [N]: each group's weights scaled to sum 1; all equal without weights, and where a group's
    are all 0.

    Such a group takes no part in the loss, its w being 0; equal w̃ only keep its targets finite.
    """
    if weights_N is None:
        weights_N = torch.ones(len(group_ids_N), dtype=torch.float64, device=group_ids_N.device)
    empty_N = _group_sum(weights_N, group_ids_N) == 0
    weights_N = torch.where(empty_N, torch.ones_like(weights_N), weights_N)
    return weights_N / _group_sum(weights_N, group_ids_N)


# scores -------------------------------------------------------------------------------------------


def bradley_terry(
    rewards_N: Tensor, group_ids_N: Tensor, *, temperature: float = 1.0
) -> list[Tensor]:
    """P_ij = σ((r_i − r_j)/τ) for each group in order of appearance: scalars as preferences [K,
    K].
    """
    parts = [rewards_N[members] for members in _members(group_ids_N)]
    return [torch.sigmoid((r_K[:, None] - r_K[None, :]) / temperature) for r_K in parts]


def win_rates(
    preferences: Sequence[Tensor], group_ids_N: Tensor, weights_N: Tensor | None = None
) -> Tensor:
    """P̂_i = Σ_j w̃_j P_ij over the group, itself included: the estimate of P(y_i ≻ π_a). Paper,
    section 4. NaN stands for a pair that was not compared, see `_met_rates`.

    Raises ValueError unless there is one [K, K] matrix for each group, in the order in which the
    groups appear.
    """
    groups = _members(group_ids_N)
    if len(preferences) != len(groups):
        raise ValueError(f"preferences: {len(preferences)} matrices for {len(groups)} groups")
    dtype = preferences[0].dtype if preferences else torch.float32
    normalized_N = normalized_weights(weights_N, group_ids_N).to(dtype)
    rates_N = torch.zeros(len(group_ids_N), dtype=dtype, device=group_ids_N.device)
    for members, matrix_KK in zip(groups, preferences, strict=True):
        if matrix_KK.shape != (len(members), len(members)):
            raise ValueError(
                f"preferences: shape {tuple(matrix_KK.shape)} for a group of {len(members)}"
            )
        weight_K = normalized_N[members]
        partial = bool(matrix_KK.isnan().any())
        rates_N[members] = _met_rates(matrix_KK, weight_K) if partial else matrix_KK @ weight_K
    return rates_N


def _met_rates(matrix_KK: Tensor, weight_K: Tensor) -> Tensor:
    """P̂_i = w̃_i/2 + (1 − w̃_i) Σ_j w̃_j P_ij / Σ_j w̃_j over the opponents j that i met: each keeps
    its own share of the group, and those it met stand for all others.

    Where all these have weight 0 they count alike. NaN for one that met nobody.
    """
    met_KK = ~matrix_KK.isnan()
    met_KK.fill_diagonal_(False)
    share_KK = met_KK * weight_K
    share_KK = torch.where(share_KK.sum(1, keepdim=True) > 0, share_KK, met_KK.to(weight_K.dtype))
    share_KK = share_KK / share_KK.sum(1, keepdim=True)
    others_K = (share_KK * matrix_KK.nan_to_num()).sum(1)
    return weight_K / 2 + (1 - weight_K) * others_K


def unmet(matrix_KK: Tensor) -> Tensor:
    """[K] True for those that met nobody while there were others to meet."""
    missing_KK = matrix_KK.isnan()
    alone_KK = missing_KK.clone().fill_diagonal_(True)
    return missing_KK.any(1) & alone_KK.all(1)


def compute_scores(
    *,
    group_ids_N: Tensor,
    rewards_N: Tensor | None = None,
    preferences: Sequence[Tensor] | None = None,
    weights_N: Tensor | None = None,
) -> Tensor:
    """s [N]: the rewards, or the win rates P̂ under w̃. Raises ValueError unless exactly one of
    both is given.
    """
    if (rewards_N is None) == (preferences is None):
        raise ValueError("scores are made of either rewards or preferences")
    if preferences is not None:
        return win_rates(preferences, group_ids_N, weights_N)
    assert rewards_N is not None
    return rewards_N


# targets ------------------------------------------------------------------------------------------


def half_targets(
    scores_N: Tensor, group_ids_N: Tensor, weights_N: Tensor | None, eta: float
) -> Tensor:
    """A = P̂ − 1/2: the log-partition of a win rate taken as η/2. Paper eq. 4.7."""
    return scores_N - 0.5


def softmean_targets(
    scores_N: Tensor, group_ids_N: Tensor, weights_N: Tensor | None, eta: float
) -> Tensor:
    """A_i = s_i − (1/η) log Σ_j w̃_j exp(η s_j): the K-sample estimate of eq. 4.4's log-partition
    under π_a.
    """
    # In float64: a difference of logarithms divided by a small η. A weight of 0 becomes −inf and
    # takes no part, and the shift by the largest term cannot overflow.
    wide_N = scores_N.double()
    term_N = eta * wide_N + normalized_weights(weights_N, group_ids_N).double().log()
    ids_G, index_N = torch.unique(group_ids_N, return_inverse=True)
    lowest_G = torch.full((len(ids_G),), -torch.inf, dtype=wide_N.dtype, device=wide_N.device)
    top_N = lowest_G.scatter_reduce(0, index_N, term_N, "amax")[index_N]
    log_partition_N = top_N + _group_sum(torch.exp(term_N - top_N), group_ids_N).log()
    return (wide_N - log_partition_N / eta).to(scores_N.dtype)


def batch_softmean_targets(
    scores_N: Tensor, group_ids_N: Tensor, weights_N: Tensor | None, eta: float
) -> Tensor:
    """One unweighted log-partition over the whole batch, as verl's recipe has it: give every group
    of the batch.
    """
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

    `preferences` holds one [K, K] per group in the order of `group_ids_N`; `weights_N` are the
    off-policy weights w. Raises ValueError for an unknown mode, for `half` without preferences, and
    as `compute_scores` does.
    """
    _known("target", mode, TARGETS)
    if mode == "half" and preferences is None:
        raise ValueError(
            "target 'half' subtracts 1/2 from a win rate: it needs preferences, not rewards"
        )
    if mode == "batch_softmean":
        weights_N = None
    scores_N = compute_scores(
        group_ids_N=group_ids_N, rewards_N=rewards_N, preferences=preferences, weights_N=weights_N
    )
    return TARGETS[mode](scores_N, group_ids_N, weights_N, eta)


# selection and labels -----------------------------------------------------------------------------


def select_all(scores_K: Tensor, matrix_KK: Tensor | None) -> Tensor:
    """Every completion."""
    return torch.ones_like(scores_K, dtype=torch.bool)


def select_best_worst(scores_K: Tensor, matrix_KK: Tensor | None) -> Tensor:
    """The first best and the first worst completion, as uclaml's trainer has it: one and the same
    where all are equal, and then the group has no signal.

    Where a matrix is given and these two did not meet, the first pair of those that did whose
    scores lie furthest apart.
    """
    best, worst = first_best(scores_K), first_best(-scores_K)
    if matrix_KK is not None and matrix_KK[best, worst].isnan():
        ahead_KK = scores_K[:, None] - scores_K
        ahead_KK = ahead_KK.masked_fill(matrix_KK.isnan(), -torch.inf)
        best, worst = divmod(first_best(ahead_KK.flatten()), len(scores_K))
    kept_K = torch.zeros_like(scores_K, dtype=torch.bool)
    kept_K[[best, worst]] = True
    return kept_K


def first_best(scores_K: Tensor) -> int:
    """Position of the first of the highest scores."""
    return int((scores_K == scores_K.max()).nonzero()[0])


SELECTIONS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "all": select_all,
    "best_worst": select_best_worst,
}


def select_completions(
    mode: str,
    scores_N: Tensor,
    group_ids_N: Tensor,
    preferences: Sequence[Tensor] | None = None,
) -> Tensor:
    """[N] True for the completions that are trained. With `preferences`, best and worst are two
    that were compared. Raises ValueError for an unknown mode.
    """
    _known("select", mode, SELECTIONS)
    kept_N = torch.zeros_like(scores_N, dtype=torch.bool)
    for g, members in enumerate(_members(group_ids_N)):
        matrix_KK = preferences[g] if preferences is not None else None
        kept_N[members] = SELECTIONS[mode](scores_N[members], matrix_KK)
    return kept_N


def pair_labels(scores_2: Tensor, matrix_22: Tensor | None) -> Tensor:
    """A_w = P_wl − 1/2 and A_l = P_lw − 1/2: the pair's own win probability (`sppo_single` of the
    paper's authors).
    """
    if matrix_22 is None:
        raise ValueError("label 'pair' needs preferences, not rewards")
    return torch.stack([matrix_22[0, 1], matrix_22[1, 0]]) - 0.5


def hard_labels(scores_2: Tensor, matrix_22: Tensor | None) -> Tensor:
    """+1/2 for the better and −1/2 for the worse, 0 for a tie (`sppo_hard` of TRL)."""
    ahead_2 = scores_2 - scores_2.flip(0)
    return torch.where(ahead_2.abs() > TIE, torch.sign(ahead_2) / 2, 0.0)


TIE = 1e-6
"""Scores as close as this are equal: win rates are sums, which round."""

LABELS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "pair": pair_labels,
    "hard": hard_labels,
}


def pair_targets(
    label: str,
    *,
    kept_N: Tensor,
    scores_N: Tensor,
    group_ids_N: Tensor,
    preferences: Sequence[Tensor] | None = None,
) -> Tensor:
    """A [N] of the two kept completions of each group, by one of `LABELS`; 0 elsewhere, and where
    a group kept one because all are equal.

    Raises ValueError where `kept_N` holds more of a group.
    """
    _known("label", label, LABELS)
    targets_N = torch.zeros_like(scores_N)
    for g, members in enumerate(_members(group_ids_N)):
        pair_K = kept_N[members]
        if int(pair_K.sum()) < 2:
            continue
        if int(pair_K.sum()) > 2:
            raise ValueError(
                f"label {label!r} needs two completions of each group; select is to be 'best_worst'"
            )
        matrix_22 = preferences[g][pair_K][:, pair_K] if preferences is not None else None
        targets_N[members[pair_K]] = LABELS[label](scores_N[members][pair_K], matrix_22).to(
            scores_N.dtype
        )
    return targets_N


def _known(family: str, mode: str, modes: Mapping[str, Callable[..., object]]) -> None:
    if mode not in modes:
        raise ValueError(f"{family} {mode!r}: there are {', '.join(modes)}")
