"""Metrics of an optimizer step from the figures of its parts, under the same names for every
objective. Their meanings: `sppo.metrics`.

Figures that a part has for it: `loss` (without terms), `residual_N`, `delta_N`, `target_N`,
`weight_N`, `clipped_N`, `log_ratio_N` (of the untruncated ratios), `log_rho_N`, `log_rho_T`,
`weightless` (groups), `rejected_T`, `kl_sum`, `kl_tokens`. One that no part has is None here.
"""

from __future__ import annotations

from torch import Tensor

from sppo import kernels
from sppo.learner.objectives.base import Stats


def summarise(stats: Stats) -> dict[str, float | None]:
    """See `Objective.summary`."""
    weightless = stats.get("weightless")
    return {
        "loss": _sum(stats, "loss"),
        "residual_mean": mean(stats, "residual_N"),
        "residual_std": std(stats, "residual_N"),
        "delta_mean": mean(stats, "delta_N"),
        "delta_std": std(stats, "delta_N"),
        "target_mean": mean(stats, "target_N"),
        "groups_without_weight": 0 if weightless is None else int(weightless.sum()),
        "weight_mean": mean(stats, "weight_N"),
        "weight_clipped_share": mean(stats, "clipped_N"),
        "effective_sample_size": _effective(stats.get("weight_N")),
        "effective_sample_size_untruncated": _effective(_ratios(stats.get("log_ratio_N"))),
        "rejected_share": mean(stats, "rejected_T"),
        "log_rho_mean": mean(stats, "log_rho_N"),
        "log_rho_std": std(stats, "log_rho_N"),
        "log_rho_token_mean": mean(stats, "log_rho_T"),
        "log_rho_token_std": std(stats, "log_rho_T"),
        "kl": _ratio(stats, "kl_sum", "kl_tokens"),
    }


def mean(stats: Stats, name: str) -> float | None:
    """Mean of a figure; None if no part has it."""
    values = stats.get(name)
    return None if values is None or not values.numel() else float(values.mean())


def std(stats: Stats, name: str) -> float | None:
    """Standard deviation of a figure, 0 for a single value; None if no part has it."""
    values = stats.get(name)
    if values is None or not values.numel():
        return None
    return float(values.std()) if values.numel() > 1 else 0.0


def _sum(stats: Stats, name: str) -> float | None:
    values = stats.get(name)
    return None if values is None else sum(values.flatten().tolist())


def _ratio(stats: Stats, name: str, by: str) -> float | None:
    total, parts = _sum(stats, name), _sum(stats, by)
    return total / parts if total is not None and parts else None


def _ratios(log_ratios: Tensor | None) -> Tensor | None:
    """Up to a common factor, which the effective sample size does not know."""
    if log_ratios is None or not log_ratios.numel():
        return None
    return (log_ratios - log_ratios.max()).exp()


def _effective(weights: Tensor | None) -> float | None:
    if weights is None or not weights.numel():
        return None
    return kernels.effective_sample_size(weights)
