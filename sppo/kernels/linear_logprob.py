"""Token log-probs straight from hidden states, without a [T, V] tensor of logits.

Shape suffixes: T tokens, H hidden, V vocabulary, C one chunk of the vocabulary.

    z = softcap(hidden · weightᵀ + bias) / temperature
    logprob_t = z[t, target_t] − lse_t,   lse_t = log Σ_v exp z[t, v],   entropy_t = lse_t − Σ_v p_tv z_tv

The vocabulary is walked in chunks with a running maximum; the backward pass computes each chunk again. Logits are
float32 whatever the inputs are: rounding them to bf16 costs 2e-3 to 2e-2 nats a token, too much
for sums over sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

VOCAB_CHUNK = 8192
Backend = Literal["auto", "torch", "reference"]


def linear_logprob(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    return_entropy: bool = False,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Log-prob of each target, the entropy if asked for, and the log-sum-exp, all float32 [T].

    Tokens whose target is `ignore_index` get log-prob 0, entropy 0 and no gradient. Gradients flow through the log-prob
    and the entropy, not through the log-sum-exp. `backend="reference"` materialises the logits.

    Raises ValueError naming the argument when shapes, dtypes or targets do not fit.
    """
    _check(hidden_TH, weight_VH, target_T, bias, temperature)
    if backend == "reference":
        return linear_logprob_reference(
            hidden_TH, weight_VH, target_T, bias=bias, temperature=temperature, softcap=softcap,
            ignore_index=ignore_index, return_entropy=return_entropy,
        )  # fmt: skip
    keep_T = target_T != ignore_index
    safe_T = torch.where(keep_T, target_T, 0)
    logprob_T, entropy_T, lse_T = _Chunked.apply(  # type: ignore[no-untyped-call]
        hidden_TH, weight_VH, bias, safe_T, keep_T, float(temperature), softcap, return_entropy
    )
    return logprob_T, entropy_T if return_entropy else None, lse_T


def linear_logprob_reference(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    return_entropy: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The specification of `linear_logprob`, in plain torch with all logits in memory."""
    dtype = torch.promote_types(hidden_TH.dtype, torch.float32)
    z_TV = hidden_TH.to(dtype) @ weight_VH.to(dtype).T
    if bias is not None:
        z_TV = z_TV + bias.to(dtype)
    if softcap is not None:
        z_TV = softcap * torch.tanh(z_TV / softcap)
    z_TV = z_TV / temperature
    keep_T = target_T != ignore_index
    all_TV = torch.log_softmax(z_TV, -1)
    logprob_T = all_TV.gather(-1, torch.where(keep_T, target_T, 0)[:, None])[:, 0]
    logprob_T = torch.where(keep_T, logprob_T, 0.0)
    entropy_T = None
    if return_entropy:
        entropy_T = torch.where(keep_T, -(all_TV.exp() * all_TV).sum(-1), 0.0)
    return logprob_T, entropy_T, torch.logsumexp(z_TV, -1).detach()


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: Tensor,
        weight_VH: Tensor,
        bias: Tensor | None,
        target_T: Tensor,
        keep_T: Tensor,
        temperature: float,
        softcap: float | None,
        return_entropy: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = hidden_TH.float()
        tokens = wide.shape[0]
        max_T = torch.full((tokens,), -torch.inf, device=wide.device)
        sum_T = torch.zeros_like(max_T)
        weighted_T = torch.zeros_like(max_T)  # Σ e^(z − max) (z − max), for the entropy
        picked_T = torch.zeros_like(max_T)
        with _low_precision_products(hidden_TH.dtype):
            for start, z_TC in _chunks(wide, weight_VH, bias, temperature, softcap):
                new_max_T = torch.maximum(max_T, z_TC.amax(-1))
                scale_T = torch.exp(max_T - new_max_T)
                shifted_TC = z_TC - new_max_T[:, None]
                e_TC = shifted_TC.exp()
                if return_entropy:
                    moved_T = torch.where(sum_T > 0, scale_T * (weighted_T + sum_T * (max_T - new_max_T)), 0.0)
                    weighted_T = moved_T + (e_TC * shifted_TC).sum(-1)
                sum_T = sum_T * scale_T + e_TC.sum(-1)
                max_T = new_max_T
                inside_T = (target_T >= start) & (target_T < start + z_TC.shape[1])
                index_T = torch.where(inside_T, target_T - start, 0)
                picked_T = torch.where(inside_T, z_TC.gather(-1, index_T[:, None])[:, 0], picked_T)
        log_sum_T = sum_T.log()
        lse_T = max_T + log_sum_T
        logprob_T = torch.where(keep_T, (picked_T - max_T) - log_sum_T, 0.0)
        entropy_T = torch.where(keep_T, log_sum_T - weighted_T / sum_T, 0.0)
        ctx.save_for_backward(hidden_TH, weight_VH, bias, target_T, keep_T, lse_T, entropy_T)
        ctx.temperature, ctx.softcap = temperature, softcap
        ctx.mark_non_differentiable(lse_T)
        ctx.set_materialize_grads(False)
        return logprob_T, entropy_T, lse_T

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        hidden_TH, weight_VH, bias, target_T, keep_T, lse_T, entropy_T = ctx.saved_tensors
        grad_T, entropy_grad_T = (
            None if g is None else torch.where(keep_T, g.float(), 0.0) / ctx.temperature for g in grads[:2]
        )
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        wide = hidden_TH.float()
        d_hidden = torch.zeros_like(wide) if need_hidden else None
        d_weight = torch.empty_like(weight_VH) if need_weight else None
        d_bias = torch.empty_like(bias) if need_bias and bias is not None else None
        with _low_precision_products(hidden_TH.dtype):
            for start, z_TC in _chunks(wide, weight_VH, bias, ctx.temperature, ctx.softcap):
                stop = start + z_TC.shape[1]
                d_TC = _logit_gradient(start, stop, z_TC, target_T, lse_T, entropy_T, grad_T, entropy_grad_T)
                if ctx.softcap is not None:
                    d_TC *= 1 - (z_TC * ctx.temperature / ctx.softcap) ** 2  # derivative of the soft cap's tanh
                if d_bias is not None:
                    d_bias[start:stop] = d_TC.sum(0).to(d_bias.dtype)
                low_TC = d_TC.to(hidden_TH.dtype)  # products at the speed of the inputs' dtype
                if d_hidden is not None:
                    d_hidden += low_TC @ weight_VH[start:stop]
                if d_weight is not None:
                    d_weight[start:stop] = low_TC.T @ hidden_TH
        return (None if d_hidden is None else d_hidden.to(hidden_TH.dtype), d_weight, d_bias, *[None] * 5)


def _logit_gradient(
    start: int,
    stop: int,
    z_TC: Tensor,
    target_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    grad_T: Tensor | None,
    entropy_grad_T: Tensor | None,
) -> Tensor:
    """[T, C] float32: grad · (1[y] − p) and, for the entropy H, grad · −p (log p + H)."""
    log_p_TC = z_TC - lse_T[:, None]
    p_TC = log_p_TC.exp()
    d_TC = torch.zeros_like(z_TC)
    if grad_T is not None:
        inside_T = (target_T >= start) & (target_T < stop)
        index_T = torch.where(inside_T, target_T - start, 0)
        d_TC -= p_TC
        d_TC.scatter_add_(-1, index_T[:, None], inside_T.to(d_TC.dtype)[:, None])
        d_TC *= grad_T[:, None]
    if entropy_grad_T is not None:
        d_TC -= entropy_grad_T[:, None] * p_TC * (log_p_TC + entropy_T[:, None])
    return d_TC


def _chunks(
    wide: Tensor, weight_VH: Tensor, bias: Tensor | None, temperature: float, softcap: float | None
) -> Iterator[tuple[int, Tensor]]:
    """(first vocabulary index, z [T, C] float32) for each chunk of the vocabulary."""
    for start in range(0, weight_VH.shape[0], VOCAB_CHUNK):
        rows = slice(start, start + VOCAB_CHUNK)
        z_TC = wide @ weight_VH[rows].float().T
        if bias is not None:
            z_TC += bias[rows].float()
        if softcap is not None:
            z_TC = softcap * torch.tanh(z_TC / softcap)
        yield start, z_TC / temperature


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


def _check(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor, bias: Tensor | None, temperature: float) -> None:
    if hidden_TH.ndim != 2 or weight_VH.ndim != 2 or hidden_TH.shape[1] != weight_VH.shape[1]:
        raise ValueError(
            f"hidden_TH {tuple(hidden_TH.shape)} and weight_VH {tuple(weight_VH.shape)}: expected [T, H] and [V, H]"
        )
    if target_T.shape != hidden_TH.shape[:1] or target_T.dtype != torch.int64:
        raise ValueError(f"target_T {target_T.dtype} {tuple(target_T.shape)}: expected int64 [{hidden_TH.shape[0]}]")
    if hidden_TH.dtype != weight_VH.dtype:
        raise ValueError(f"hidden_TH is {hidden_TH.dtype}, weight_VH is {weight_VH.dtype}: expected one dtype")
    if bias is not None and bias.shape != weight_VH.shape[:1]:
        raise ValueError(f"bias {tuple(bias.shape)}: expected [{weight_VH.shape[0]}]")
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: expected a number above 0")
    if target_T.device.type == "cpu" and target_T.numel() and int(target_T.max()) >= weight_VH.shape[0]:
        raise ValueError(f"target_T holds {int(target_T.max())}: expected less than V = {weight_VH.shape[0]}")
