"""The specification of `sequence_log_ratios` and `sppo_loss` in plain torch: what runs on a CPU and
in float64.

Shape suffixes: T completion tokens of all sequences laid end to end, N completions, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppo.kernels.importance import weigh
from sppo.kernels.loss.call import LossStats, Terms, Tokens
from sppo.kernels.segments import segment_mean, segment_sum


def sequence_log_ratios_reference(tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """(Δ, log ρ, length) [N]. Sums are float32, or float64 for float64."""
    wide = torch.promote_types(tokens.logprob_T.dtype, torch.float32)
    logprob_T, anchor_T, behavior_T = (values_T.to(wide) for values_T in tokens[:3])
    mask_T, cu_seqlens = tokens.mask_T, tokens.cu_seqlens
    counts_T = torch.ones_like(logprob_T, dtype=torch.bool) if mask_T is None else mask_T != 0
    delta_T = torch.where(counts_T, logprob_T - anchor_T.detach(), 0.0)
    log_rho_T = torch.where(counts_T, (anchor_T - behavior_T).detach(), 0.0)
    delta_N = segment_sum(delta_T, cu_seqlens)
    log_rho_N = segment_sum(log_rho_T, cu_seqlens)
    return delta_N, log_rho_N, segment_sum(counts_T.to(wide), cu_seqlens)


def sppo_loss_reference(tokens: Tokens, terms: Terms) -> tuple[Tensor, LossStats]:
    """The loss, which carries the gradient of `logprob_T`, and its statistics."""
    delta_N, log_rho_N, length_N = sequence_log_ratios_reference(tokens)
    weight_N, clipped_N, part_N = weigh(terms.mode, log_rho_N, length_N, terms.limit)
    regressed_N = delta_N / length_N.clamp(min=1) if terms.length_normalized else delta_N
    target_N = terms.target_N
    residual_N = regressed_N - terms.eta * target_N
    if terms.centered:
        offsets = terms.group_offsets
        residual_N = residual_N - segment_mean(residual_N.detach(), offsets, part_N)
        target_N = target_N - segment_mean(target_N, offsets, part_N)
    loss = (weight_N * residual_N**2).sum() / terms.normalizer
    return loss, LossStats(
        residual_N=residual_N.detach(),
        delta_N=delta_N.detach(),
        target_N=target_N,
        weight_N=weight_N,
        clipped_N=clipped_N,
        log_rho_N=log_rho_N,
        length_N=length_N,
    )
