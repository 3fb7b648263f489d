"""The torch path of `logits_logprob`: a block of tokens at a time, so that float32 copies stay
small.

Shape suffixes: T tokens, V vocabulary, N kept tokens, B the tokens of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sppo.kernels.inputs import check_result, check_values
from sppo.kernels.logits.call import Call, Upstream

BLOCK_BYTES = 64 * 2**20
"""Most bytes of one float32 copy of a block."""


def forward(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """(log-prob, entropy, log-sum-exp), float32 or float64 [T]; the entropy is empty unless it is
    asked for. On a CPU bad values raise ValueError.
    """
    on_cpu, like_T = call.target_T.device.type == "cpu", call.temperature_T
    if on_cpu:
        check_values(call.target_T, like_T, call.logits_TV.shape[1], call.ignore_index)
    logprob_T, lse_T = torch.zeros_like(like_T), torch.zeros_like(like_T)
    entropy_T = torch.zeros_like(like_T) if call.return_entropy else like_T.new_empty(0)
    for index_B, z_BV in _blocks(call):
        max_B = z_BV.amax(-1)
        shifted_BV = z_BV - max_B[:, None]
        e_BV = shifted_BV.exp()
        sum_B = e_BV.sum(-1)
        log_sum_B = sum_B.log()
        picked_B = shifted_BV.gather(-1, call.target_T[index_B][:, None])[:, 0]
        logprob_T[index_B] = picked_B - log_sum_B
        lse_T[index_B] = max_B + log_sum_B
        if call.return_entropy:
            weighted_B = torch.where(e_BV > 0, e_BV * shifted_BV, 0.0).sum(-1)
            entropy_T[index_B] = log_sum_B - weighted_B / sum_B
    if on_cpu:
        check_result(lse_T, logits_TV=call.logits_TV)
    return logprob_T, entropy_T, lse_T


def backward(call: Call, upstream: Upstream) -> None:
    """Write the gradient of the logits into `into_TV`, which may be `logits_TV`."""
    into_TV, entropy_grad_T = upstream.into_TV, upstream.entropy_grad_T
    for index_B, z_BV in _blocks(call):
        log_p_BV = z_BV - upstream.lse_T[index_B, None]
        p_BV = log_p_BV.exp()
        d_BV = -p_BV
        # The target's own entry comes from the log-prob, which is exact where p is nearly 1.
        target_B1, logprob_B1 = call.target_T[index_B, None], upstream.logprob_T[index_B, None]
        d_BV.scatter_(-1, target_B1, -torch.expm1(logprob_B1))
        d_BV *= upstream.grad_T[index_B, None]
        if entropy_grad_T is not None:
            shifted_BV = log_p_BV + upstream.entropy_T[index_B, None]
            part_BV = entropy_grad_T[index_B, None] * p_BV * shifted_BV
            d_BV -= torch.where(p_BV > 0, part_BV, 0.0)
        temperature_B1 = call.temperature_T[index_B, None]
        if call.softcap is not None:
            d_BV *= 1 - (z_BV * temperature_B1 / call.softcap) ** 2
        into_TV[index_B] = (d_BV / temperature_B1).to(into_TV.dtype)
    into_TV[call.target_T == call.ignore_index] = 0


def _blocks(call: Call) -> Iterator[tuple[Tensor, Tensor]]:
    """(indices of kept tokens, their z [B, V])."""
    size = max(1, BLOCK_BYTES // (4 * call.logits_TV.shape[1]))
    kept_N = (call.target_T != call.ignore_index).nonzero()[:, 0]
    for start in range(0, len(kept_N), size):
        index_B = kept_N[start : start + size]
        z_BV = call.logits_TV[index_B].to(call.temperature_T.dtype)
        if call.softcap is not None:
            z_BV = call.softcap * torch.tanh(z_BV / call.softcap)
        yield index_B, z_BV / call.temperature_T[index_B, None]
