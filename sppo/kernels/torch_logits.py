"""The torch path of `logits_logprob`: a block of tokens at a time, so that float32 copies stay
small.

Shape suffixes: T tokens, V vocabulary, N kept tokens, B the tokens of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_BYTES = 64 * 2**20
"""Most bytes of one float32 copy of a block."""


def forward(
    logits_TV: Tensor,
    target_T: Tensor,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
    return_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(log-prob, entropy, log-sum-exp), float32 or float64 [T]; the entropy is empty unless it is
    asked for.
    """
    logprob_T, lse_T = torch.zeros_like(temperature_T), torch.zeros_like(temperature_T)
    entropy_T = torch.zeros_like(temperature_T) if return_entropy else temperature_T.new_empty(0)
    for index_B, z_BV in _blocks(logits_TV, target_T, temperature_T, softcap, ignore_index):
        max_B = z_BV.amax(-1)
        shifted_BV = z_BV - max_B[:, None]
        e_BV = shifted_BV.exp()
        sum_B = e_BV.sum(-1)
        log_sum_B = sum_B.log()
        picked_B = shifted_BV.gather(-1, target_T[index_B][:, None])[:, 0]
        logprob_T[index_B] = picked_B - log_sum_B
        lse_T[index_B] = max_B + log_sum_B
        if return_entropy:
            weighted_B = torch.where(e_BV > 0, e_BV * shifted_BV, 0.0).sum(-1)
            entropy_T[index_B] = log_sum_B - weighted_B / sum_B
    return logprob_T, entropy_T, lse_T


def backward(
    logits_TV: Tensor,
    target_T: Tensor,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
    logprob_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    grad_T: Tensor,
    entropy_grad_T: Tensor | None,
    into_TV: Tensor,
) -> None:
    """Write the gradient of the logits into `into_TV`, which may be `logits_TV`."""
    for index_B, z_BV in _blocks(logits_TV, target_T, temperature_T, softcap, ignore_index):
        log_p_BV = z_BV - lse_T[index_B, None]
        p_BV = log_p_BV.exp()
        target_B = target_T[index_B, None]
        d_BV = -p_BV
        # The target's own entry comes from the log-prob, which is exact where p is nearly 1.
        d_BV.scatter_(-1, target_B, -torch.expm1(logprob_T[index_B, None]))
        d_BV *= grad_T[index_B, None]
        if entropy_grad_T is not None:
            part_BV = entropy_grad_T[index_B, None] * p_BV * (log_p_BV + entropy_T[index_B, None])
            d_BV -= torch.where(p_BV > 0, part_BV, 0.0)
        if softcap is not None:
            d_BV *= 1 - (z_BV * temperature_T[index_B, None] / softcap) ** 2
        into_TV[index_B] = (d_BV / temperature_T[index_B, None]).to(into_TV.dtype)
    into_TV[target_T == ignore_index] = 0


def _blocks(
    logits_TV: Tensor,
    target_T: Tensor,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(indices of kept tokens, their z [B, V])."""
    size = max(1, BLOCK_BYTES // (4 * logits_TV.shape[1]))
    kept_N = (target_T != ignore_index).nonzero()[:, 0]
    for start in range(0, len(kept_N), size):
        index_B = kept_N[start : start + size]
        z_BV = logits_TV[index_B].to(temperature_T.dtype)
        if softcap is not None:
            z_BV = softcap * torch.tanh(z_BV / softcap)
        yield index_B, z_BV / temperature_T[index_B, None]
