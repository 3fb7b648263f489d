"""The torch path of `linear_logprob`: chunks of the vocabulary, computed again in the backward pass.

Logits are float32 whatever the inputs are (float64 for float64): rounding them to bf16 costs 2e-3 to 2e-2 nats a
token, too much for sums over sequences.

Shape suffixes: T tokens, H hidden, V vocabulary, C columns of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

VOCAB_CHUNK = 8192


def forward(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    bias: Tensor | None,
    temperature_T: Tensor,
    softcap: float | None,
    return_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(log-prob, entropy, log-sum-exp), float32 or float64 [T]; the entropy is empty unless it is asked for."""
    wide = _wide(hidden_TH)
    max_T = wide.new_full((wide.shape[0],), -torch.inf)
    sum_T, weighted_T, picked_T = (torch.zeros_like(max_T) for _ in range(3))  # weighted: Σ e^(z − max) (z − max)
    with _low_precision_products(hidden_TH.dtype):
        for start, z_TC in _chunks(wide, weight_VH, bias, temperature_T, softcap):
            new_max_T = torch.maximum(max_T, z_TC.amax(-1)).clamp(min=torch.finfo(wide.dtype).min)
            scale_T = torch.exp(max_T - new_max_T)
            shifted_TC = z_TC - new_max_T[:, None]
            e_TC = shifted_TC.exp()
            if return_entropy:
                moved_T = torch.where(sum_T > 0, scale_T * (weighted_T + sum_T * (max_T - new_max_T)), 0.0)
                weighted_T = moved_T + torch.where(e_TC > 0, e_TC * shifted_TC, 0.0).sum(-1)
            sum_T = sum_T * scale_T + e_TC.sum(-1)
            max_T = new_max_T
            inside_T = (target_T >= start) & (target_T < start + z_TC.shape[1])
            index_T = torch.where(inside_T, target_T - start, 0)
            picked_T = torch.where(inside_T, z_TC.gather(-1, index_T[:, None])[:, 0], picked_T)
    log_sum_T = sum_T.log()
    entropy_T = log_sum_T - weighted_T / sum_T if return_entropy else max_T.new_empty(0)
    return (picked_T - max_T) - log_sum_T, entropy_T, max_T + log_sum_T


def backward(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    bias: Tensor | None,
    temperature_T: Tensor,
    softcap: float | None,
    lse_T: Tensor,
    entropy_T: Tensor,
    grad_T: Tensor,
    entropy_grad_T: Tensor | None,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias, in their dtypes, where `needs` says so."""
    wide = _wide(hidden_TH)
    grad_T = grad_T / temperature_T
    entropy_grad_T = None if entropy_grad_T is None else entropy_grad_T / temperature_T
    d_hidden = torch.zeros_like(wide) if needs[0] else None
    d_weight = torch.empty_like(weight_VH) if needs[1] else None
    d_bias = torch.empty_like(bias) if needs[2] and bias is not None else None
    with _low_precision_products(hidden_TH.dtype):
        for start, z_TC in _chunks(wide, weight_VH, bias, temperature_T, softcap):
            rows = slice(start, start + z_TC.shape[1])
            d_TC = _logit_gradient(start, z_TC, target_T, lse_T, entropy_T, grad_T, entropy_grad_T)
            if softcap is not None:
                d_TC *= 1 - (z_TC * temperature_T[:, None] / softcap) ** 2  # derivative of the soft cap's tanh
            if d_bias is not None:
                d_bias[rows] = d_TC.sum(0).to(d_bias.dtype)
            low_TC = d_TC.to(hidden_TH.dtype)  # products at the speed of the inputs' dtype
            if d_hidden is not None:
                d_hidden += low_TC @ weight_VH[rows]
            if d_weight is not None:
                d_weight[rows] = low_TC.T @ hidden_TH
    return None if d_hidden is None else d_hidden.to(hidden_TH.dtype), d_weight, d_bias


def _logit_gradient(
    start: int,
    z_TC: Tensor,
    target_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    grad_T: Tensor,
    entropy_grad_T: Tensor | None,
) -> Tensor:
    """[T, C]: grad · (1[y] − p) and, for the entropy H, grad · −p (log p + H)."""
    log_p_TC = z_TC - lse_T[:, None]
    p_TC = log_p_TC.exp()
    inside_T = (target_T >= start) & (target_T < start + z_TC.shape[1])
    index_T = torch.where(inside_T, target_T - start, 0)
    d_TC = -p_TC
    d_TC.scatter_add_(-1, index_T[:, None], inside_T.to(d_TC.dtype)[:, None])
    d_TC *= grad_T[:, None]
    if entropy_grad_T is not None:
        d_TC -= torch.where(p_TC > 0, entropy_grad_T[:, None] * p_TC * (log_p_TC + entropy_T[:, None]), 0.0)
    return d_TC


def _chunks(
    wide: Tensor, weight_VH: Tensor, bias: Tensor | None, temperature_T: Tensor, softcap: float | None
) -> Iterator[tuple[int, Tensor]]:
    """(first vocabulary index, z [T, C]) for each chunk of the vocabulary."""
    for start in range(0, weight_VH.shape[0], VOCAB_CHUNK):
        rows = slice(start, start + VOCAB_CHUNK)
        z_TC = wide @ weight_VH[rows].to(wide.dtype).T
        if bias is not None:
            z_TC += bias[rows].to(wide.dtype)
        if softcap is not None:
            z_TC = softcap * torch.tanh(z_TC / softcap)
        yield start, z_TC / temperature_T[:, None]


def _wide(inputs: Tensor) -> Tensor:
    return inputs.to(torch.promote_types(inputs.dtype, torch.float32))


@contextmanager
def _low_precision_products(dtype: torch.dtype) -> Iterator[None]:
    """On a CPU, multiply float32 copies of bf16 numbers at bf16 speed; sums stay float32. A global flag: restored."""
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if dtype is torch.bfloat16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
