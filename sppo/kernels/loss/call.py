"""The flat arguments of both operations, and what the loss says of itself.

Shape suffixes: T completion tokens of all sequences laid end to end, N completions, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Tokens(NamedTuple):
    """Log-probs of the policy, the anchor and the sampler, in nats."""

    logprob_T: Tensor
    anchor_T: Tensor
    behavior_T: Tensor
    mask_T: Tensor | None
    """0 for tokens that do not count."""
    cu_seqlens: Tensor
    """[N + 1] offsets of the completions in T."""


class Terms(NamedTuple):
    """What the residuals and their weights are made of."""

    target_N: Tensor
    group_offsets: Tensor
    """[G + 1] offsets of the groups in N."""
    normalizer: Tensor
    """[] float32: completions of the optimizer step."""
    eta: float
    mode: str
    """Weight mode, a name of `importance.WEIGHTS`."""
    limit: float
    """Log of the weights' cap."""
    centered: bool
    length_normalized: bool
    want_gradient: bool
    """Whether Triton writes the gradient along with the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossStats:
    """What the loss was made of, detached, for every completion it was given."""

    residual_N: Tensor
    delta_N: Tensor
    """Δ in nats, before any length normalisation."""
    target_N: Tensor
    """A; for `centered` the score minus its group's mean."""
    weight_N: Tensor
    """0 for a completion without a token that counts."""
    clipped_N: Tensor
    """True where the cap changed the weight."""
    log_rho_N: Tensor
    """log ρ in nats, over the sequence."""
    length_N: Tensor
