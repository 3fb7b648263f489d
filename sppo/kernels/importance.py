"""Off-policy weights w of whole completions: one function per mode, one visible dict. Formulas:
docs/objective.md.

Shape suffix: N completions. Weights are detached; ρ is the sequence importance ratio π_a / μ.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def no_weights(log_rho_N: Tensor, length_N: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """w = 1."""
    return torch.ones_like(log_rho_N), torch.zeros_like(log_rho_N, dtype=torch.bool)


def geometric_weights(log_rho_N: Tensor, length_N: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """w = ρ^(1/|y|) clipped to [1/cap, cap]: the per-token geometric mean, of bounded variance at
    any length.
    """
    log_ratio_N = log_rho_N / length_N.clamp(min=1)
    return log_ratio_N.clamp(-limit, limit).exp(), log_ratio_N.abs() > limit


def sequence_ratio_weights(
    log_rho_N: Tensor, length_N: Tensor, limit: float
) -> tuple[Tensor, Tensor]:
    """w = min(ρ, cap): exact up to truncation; its variance grows with the length."""
    return log_rho_N.clamp(max=limit).exp(), log_rho_N > limit


def masked_weights(log_rho_N: Tensor, length_N: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """w = 1 where ρ^(1/|y|) lies in [1/cap, cap], else 0."""
    outside_N = (log_rho_N / length_N.clamp(min=1)).abs() > limit
    return (~outside_N).to(log_rho_N.dtype), outside_N


WEIGHTS: dict[str, Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "none": no_weights,
    "geometric": geometric_weights,
    "sequence": sequence_ratio_weights,
    "masked": masked_weights,
}
"""Mode to a function of (log ρ, tokens, log of the cap) that returns (w, True where the cap changed
it).
"""

CAPS = {"none": math.inf, "geometric": 1.2, "sequence": 2.0, "masked": 1.2}
"""Each mode's own cap, where the caller names none."""


def weigh(
    mode: str, log_rho_N: Tensor, length_N: Tensor, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(w, True where the cap changed it, True where a completion takes part in its group's mean)
    [N]; `limit` is the log of the cap.

    A completion without a token that counts takes part in nothing: its weight is 0. One that its
    mode rejects (`masked`) has weight 0 and takes no part in the mean.
    """
    weight_N, clipped_N = WEIGHTS[mode](log_rho_N, length_N, limit)
    empty_N = length_N == 0
    part_N = ~(empty_N | clipped_N & (weight_N == 0))
    return weight_N.masked_fill(empty_N, 0.0), clipped_N, part_N


def sequence_weights(
    mode: str, log_rho_N: Tensor, length_N: Tensor, *, cap: float | None = None
) -> tuple[Tensor, Tensor]:
    """(off-policy weights w, True where the cap changed them) [N], detached; 0 for a completion
    without a token that counts. Raises ValueError for an unknown mode or a cap ≤ 1.
    """
    weight_N, clipped_N, _ = weigh(mode, log_rho_N.detach(), length_N, log_cap(mode, cap))
    return weight_N, clipped_N


def log_cap(mode: str, cap: float | None) -> float:
    """log of the cap, by default the mode's own. Raises ValueError for an unknown mode or a cap ≤
    1.
    """
    if mode not in WEIGHTS:
        raise ValueError(f"weight {mode!r}: there are {', '.join(WEIGHTS)}")
    cap = CAPS[mode] if cap is None else cap
    if not cap > 1:
        raise ValueError(f"cap = {cap}: must be greater than 1")
    return math.log(cap)


def effective_sample_size(weights_N: Tensor) -> float:
    """(Σw)² / (N Σw²), the share of the completions that count: 1 when all weights are equal, 0
    when all are 0.
    """
    squares = float((weights_N**2).sum())
    share = float(weights_N.sum()) ** 2 / (len(weights_N) * squares) if squares else 0.0
    return min(share, 1.0)  # equal weights may round to a little more
