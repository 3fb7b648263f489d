"""The Triton path of `sequence_log_ratios` and `sppo_loss`: one program per group, from token
log-probs to loss, gradient and statistics.

Shape suffixes: T completion tokens, N completions, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppo.kernels.inputs import launching_on
from sppo.kernels.loss_kernels import sequence_log_ratios_kernel, sppo_loss_kernel

BLOCK = 1024
"""Tokens of a completion that a program takes at a time."""
WARPS = 4


def sequence_log_ratios(
    logprob_T: Tensor,
    anchor_T: Tensor,
    behavior_T: Tensor,
    mask_T: Tensor | None,
    cu_seqlens: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """(Δ, log ρ, length) [N] of contiguous float32 tokens; mask uint8."""
    delta_N, log_rho_N, length_N = (logprob_T.new_empty(len(cu_seqlens) - 1) for _ in range(3))
    if len(delta_N):
        with launching_on(logprob_T):
            sequence_log_ratios_kernel[(len(delta_N),)](
                logprob_T, anchor_T, behavior_T, mask_T, cu_seqlens, delta_N, log_rho_N, length_N,
                HAS_MASK=mask_T is not None, BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip
    return delta_N, log_rho_N, length_N


def sppo_loss(
    logprob_T: Tensor, anchor_T: Tensor, behavior_T: Tensor, mask_T: Tensor | None,
    cu_seqlens: Tensor,
    target_N: Tensor, group_offsets: Tensor, *, eta: float, mode: str, limit: float, centered: bool,
    length_normalized: bool, normalizer: int, want_gradient: bool,
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """(loss, its gradient [T], the fields of LossStats in their order) of contiguous float32 input;
    mask uint8.

    The gradient is empty unless it is wanted.
    """
    loss_G = logprob_T.new_empty(len(group_offsets) - 1)
    gradient_T = logprob_T.new_empty(len(logprob_T) if want_gradient else 0)
    residual_N, delta_N, shifted_N, weight_N, log_rho_N, length_N = (
        torch.empty_like(target_N) for _ in range(6)
    )
    clipped_N = torch.empty_like(target_N, dtype=torch.bool)
    stats = (residual_N, delta_N, shifted_N, weight_N, clipped_N, log_rho_N, length_N)
    if len(loss_G):
        with launching_on(logprob_T):
            sppo_loss_kernel[(len(loss_G),)](
                logprob_T, anchor_T, behavior_T, mask_T, cu_seqlens, target_N, group_offsets,
                loss_G, gradient_T,
                *stats, normalizer, ETA=eta, MODE=mode, LIMIT=limit, CENTERED=centered,
                LENGTH_NORMALIZED=length_normalized, HAS_MASK=mask_T is not None,
                WANT_GRADIENT=want_gradient,
                BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip
    return loss_G.sum(), gradient_T, stats
