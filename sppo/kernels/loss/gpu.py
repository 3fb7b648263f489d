"""The Triton path of `sequence_log_ratios` and `sppo_loss`: one program per group, from token
log-probs to loss, gradient and statistics.

Shape suffixes: T completion tokens, N completions, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppo.kernels.inputs import launching_on
from sppo.kernels.loss.call import Terms, Tokens
from sppo.kernels.loss.gpu_kernels import sequence_log_ratios_kernel, sppo_loss_kernel

BLOCK = 1024
"""Tokens of a completion that a program takes at a time."""
WARPS = 4


def sequence_log_ratios(tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """(Δ, log ρ, length) [N] of contiguous float32 tokens; mask uint8."""
    completions = len(tokens.cu_seqlens) - 1
    delta_N, log_rho_N, length_N = (tokens.logprob_T.new_empty(completions) for _ in range(3))
    if completions:
        with launching_on(tokens.logprob_T):
            sequence_log_ratios_kernel[(completions,)](
                *tokens, delta_N, log_rho_N, length_N,
                HAS_MASK=tokens.mask_T is not None, BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip
    return delta_N, log_rho_N, length_N


def sppo_loss(tokens: Tokens, terms: Terms) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """(loss, its gradient [T], the fields of LossStats in their order) of contiguous float32 input;
    mask uint8.

    The gradient is empty unless it is wanted.
    """
    logprob_T, target_N = tokens.logprob_T, terms.target_N
    loss_G = logprob_T.new_empty(len(terms.group_offsets) - 1)
    gradient_T = logprob_T.new_empty(len(logprob_T) if terms.want_gradient else 0)
    residual_N, delta_N, shifted_N, weight_N, log_rho_N, length_N = (
        torch.empty_like(target_N) for _ in range(6)
    )
    clipped_N = torch.empty_like(target_N, dtype=torch.bool)
    stats = (residual_N, delta_N, shifted_N, weight_N, clipped_N, log_rho_N, length_N)
    if len(loss_G):
        with launching_on(logprob_T):
            sppo_loss_kernel[(len(loss_G),)](
                *tokens, target_N, terms.group_offsets, terms.normalizer, loss_G, gradient_T,
                *stats, ETA=terms.eta, MODE=terms.mode, LIMIT=terms.limit,
                CENTERED=terms.centered, LENGTH_NORMALIZED=terms.length_normalized,
                HAS_MASK=tokens.mask_T is not None, WANT_GRADIENT=terms.want_gradient,
                BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip
    return loss_G.sum(), gradient_T, stats
