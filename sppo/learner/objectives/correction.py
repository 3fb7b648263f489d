"""What stands between the policy that sampled and the anchor: off-policy weights, and rejection.

Shape suffixes: T completion tokens, N completions. All of it is detached. ρ is the importance ratio
π_a / μ, of a token or of a sequence. Formulas and which to choose: docs/objective.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sppo import kernels
from sppo.config import ObjectiveConfig
from sppo.config.objective import WEIGHT_CAPS
from sppo.kernels import LossStats, segment_sum
from sppo.learner.objectives.base import ObjectiveBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Of every completion of a batch."""

    weight_N: Tensor
    """w of the whole completion: 0 where rejected, else 1 where weights are of tokens."""
    clipped_N: Tensor
    """True where the cap changed the weight."""
    log_rho_N: Tensor
    """log ρ of the sequence, nats, rejected tokens included."""
    accepted_T: Tensor | None = None
    """False for rejected tokens; None where nothing is ever rejected."""
    ratio_T: Tensor | None = None
    """Truncated ratios of tokens; None unless `weight` = "token"."""

    @classmethod
    def of_loss(cls, found: LossStats) -> Correction:
        """What the fused loss found by itself."""
        return cls(weight_N=found.weight_N, clipped_N=found.clipped_N, log_rho_N=found.log_rho_N)

    def weighted(self, values_T: Tensor) -> Tensor:
        """Values of tokens by the weights of tokens: 0 for rejected ones."""
        if self.ratio_T is not None:
            values_T = values_T * self.ratio_T
        return values_T if self.accepted_T is None else torch.where(self.accepted_T, values_T, 0.0)

    def counted(self, batch: ObjectiveBatch) -> Tensor:
        """[N] tokens of each completion that are not rejected."""
        if self.accepted_T is None:
            return batch.length_N
        return segment_sum(self.accepted_T.long(), batch.cu_seqlens)

    def token_weights(self, cu_seqlens: Tensor) -> Tensor:
        """[T] what a token counts: its completion's weight, times its own; 0 if it is rejected."""
        return self.weighted(torch.repeat_interleave(self.weight_N, cu_seqlens.diff()))

    def figures(self, settings: ObjectiveConfig, batch: ObjectiveBatch) -> dict[str, Tensor]:
        """For `summary.summarise`."""
        assert batch.anchor_T is not None
        log_rho_T = batch.anchor_T.detach() - batch.behavior_T
        weights, clipped = self.weight_N, self.clipped_N.float()
        if self.ratio_T is not None:
            weights = self.token_weights(batch.cu_seqlens)
            clipped = (log_rho_T > math.log(settings.weight_cap or WEIGHT_CAPS["token"])).float()
        total_G = segment_sum(self.weight_N, batch.group_offsets)
        found = {
            "weight_N": weights,
            "clipped_N": clipped,
            "log_ratio_N": _untruncated(settings, batch, self.log_rho_N, log_rho_T),
            "log_rho_N": self.log_rho_N,
            "log_rho_T": log_rho_T,
            "weightless": ((total_G == 0) & (batch.group_offsets.diff() > 0)).sum().float(),
        }
        if self.accepted_T is not None:
            found["rejected_T"] = (~self.accepted_T).float()
        return found


def is_plain(settings: ObjectiveConfig) -> bool:
    """Whether each completion has one weight and none is rejected: what the fused loss knows by
    itself.
    """
    return settings.weight != "token" and settings.reject == "none"


def correct(settings: ObjectiveConfig, batch: ObjectiveBatch) -> Correction:
    """Weights under `objective.weight`, of what `objective.reject` leaves."""
    assert batch.anchor_T is not None
    log_rho_T = batch.anchor_T.detach() - batch.behavior_T
    log_rho_N, length_N = _sequences(batch, None)
    accepted_T, ratio_T, left_N = None, None, log_rho_N
    if settings.reject != "none":
        accepted_T = _accepted(settings, batch, log_rho_T, log_rho_N)
        left_N, length_N = _sequences(batch, accepted_T)
    if settings.weight == "token":
        ratio_T = log_rho_T.clamp(max=math.log(settings.weight_cap or WEIGHT_CAPS["token"])).exp()
    weight_N, clipped_N = kernels.sequence_weights(
        "none" if settings.weight == "token" else settings.weight,
        left_N,
        length_N,
        cap=None if settings.weight == "token" else settings.weight_cap or None,
    )
    return Correction(
        weight_N=weight_N,
        clipped_N=clipped_N,
        log_rho_N=log_rho_N,
        accepted_T=accepted_T,
        ratio_T=ratio_T,
    )


def _sequences(batch: ObjectiveBatch, counts_T: Tensor | None) -> tuple[Tensor, Tensor]:
    """(log ρ, tokens) [N] of the tokens that count."""
    assert batch.anchor_T is not None
    _, log_rho_N, length_N = kernels.sequence_log_ratios(
        batch.logprob_T.detach(),
        batch.anchor_T,
        batch.behavior_T,
        counts_T,
        batch.cu_seqlens,
        backend=batch.kernels,
    )
    return log_rho_N, length_N


def _untruncated(
    settings: ObjectiveConfig, batch: ObjectiveBatch, log_rho_N: Tensor, log_rho_T: Tensor
) -> Tensor:
    """log of the ratio that `objective.weight` truncates, before it does: of each token, of the
    sequence, or its per-token geometric mean.
    """
    if settings.weight == "token":
        return log_rho_T
    return log_rho_N if settings.weight == "sequence" else log_rho_N / batch.length_N.clamp(min=1)


def _accepted(
    settings: ObjectiveConfig, batch: ObjectiveBatch, log_rho_T: Tensor, log_rho_N: Tensor
) -> Tensor:
    """[T] False for tokens of which the ratio, or the geometric mean of it over their completion,
    lies outside [reject_low, reject_high].
    """
    log_ratio_T = log_rho_T
    if settings.reject == "geometric":
        mean_N = log_rho_N / batch.length_N.clamp(min=1)
        log_ratio_T = torch.repeat_interleave(mean_N, batch.length_N)
    low, high = (math.log(bound) for bound in settings.reject_bounds)
    return (log_ratio_T >= low) & (log_ratio_T <= high)
