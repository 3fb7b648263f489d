"""The torch path of `linear_logprob`: chunks of the vocabulary, computed again in the backward
pass. It runs on a CPU.

Logits are float32 whatever the inputs are (float64 for float64): rounding them to bf16 costs 2e-3
to 2e-2 nats a token, too much for sums over sequences. `fast` rounds them all the same. Gradients
of logits are rounded to the inputs' dtype, once 1[y] − p is formed; the products of the chunks are
summed in float32.

Each chunk leaves (max, Σ e^(z − max), Σ e^(z − max) (z − max)) for every token, and `_combine`
joins them.

Shape suffixes: T tokens, N kept tokens, B a few of them, H hidden, V vocabulary, C one chunk of it,
S statistics of chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sppo.kernels.inputs import check_result, check_values
from sppo.kernels.linear.call import Call, Upstream
from sppo.kernels.linear.fused import Fused

CHUNK_LOGITS = 1 << 22
"""Logits of one chunk, all tokens together."""
MIN_CHUNK, MAX_CHUNK = 256, 8192


def forward(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """(log-prob, entropy, log-sum-exp), float32 or float64 [T]; the entropy is empty unless it is
    asked for. On a CPU bad values raise ValueError.
    """
    on_cpu = call.target_T.device.type == "cpu"
    if on_cpu:
        check_values(call.target_T, call.temperature_T, len(call.weight_VH), call.ignore_index)
    kept_N = _kept(call)
    logprob_N, entropy_N, lse_N = _log_probs(_only(call, kept_N))
    if on_cpu:
        check_result(lse_N, hidden_TH=call.hidden_TH, weight_VH=call.weight_VH, bias=call.bias)
    tokens = len(call.target_T)
    entropy_T = _restore(entropy_N, kept_N, tokens) if call.return_entropy else entropy_N
    return _restore(logprob_N, kept_N, tokens), entropy_T, _restore(lse_N, kept_N, tokens)


def backward(call: Call, upstream: Upstream) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias, in their dtypes, where they are needed."""
    kept_N = _kept(call)
    entropy_T, entropy_grad_T = upstream.entropy_T, upstream.entropy_grad_T
    kept = upstream._replace(
        logprob_T=upstream.logprob_T[kept_N],
        lse_T=upstream.lse_T[kept_N],
        entropy_T=entropy_T[kept_N] if len(entropy_T) else entropy_T,
        grad_T=upstream.grad_T[kept_N],
        entropy_grad_T=None if entropy_grad_T is None else entropy_grad_T[kept_N],
    )
    d_hidden, d_weight, d_bias = _gradients(_only(call, kept_N), kept)
    if d_hidden is not None:
        d_hidden = _restore(d_hidden, kept_N, len(call.target_T))
    return d_hidden, d_weight, d_bias


def _kept(call: Call) -> Any:
    """An index of the tokens that count; of all of them without a copy."""
    keep_T = call.target_T != call.ignore_index
    return slice(None) if keep_T.all() else keep_T.nonzero()[:, 0]


def _only(call: Call, kept_N: Any) -> Call:
    return call._replace(
        hidden_TH=call.hidden_TH[kept_N],
        temperature_T=call.temperature_T[kept_N],
        target_T=call.target_T[kept_N],
    )


def _restore(found_N: Tensor, kept_N: Any, tokens: int) -> Tensor:
    """Back to [T, ...], zero where ignored."""
    if isinstance(kept_N, slice):
        return found_N
    return found_N.new_zeros(tokens, *found_N.shape[1:]).index_copy(0, kept_N, found_N)


def _log_probs(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """(log-prob, entropy, log-sum-exp) of tokens that all count."""
    temperature_T, target_T = call.temperature_T, call.target_T
    scale_T, cap = 1 / temperature_T, _scalar(call.softcap, temperature_T)
    lowest = torch.finfo(temperature_T.dtype).min
    joined_3T = temperature_T.new_tensor([[lowest], [0.0], [0.0]]).expand(3, len(temperature_T))
    picked_T = torch.zeros_like(temperature_T)
    for rows, raw_TC in _chunks(call):
        joined_3T = _combine(
            torch.stack([joined_3T, _statistics(raw_TC, scale_T, cap, call.return_entropy)])
        )
        at_B, column_B = _targets_within(target_T, rows)
        picked_T[at_B] = _shaped(raw_TC[at_B, column_B][:, None], scale_T[at_B], cap)[:, 0]
    known_T = (target_T >= 0) & (target_T < len(call.weight_VH))  # always, on a CPU
    picked_T = torch.where(known_T, picked_T, torch.nan)
    max_T, sum_T, weighted_T = joined_3T.unbind(0)
    log_sum_T = sum_T.log()
    entropy_T = log_sum_T - weighted_T / sum_T if call.return_entropy else max_T.new_empty(0)
    return (picked_T - max_T) - log_sum_T, entropy_T, max_T + log_sum_T


def _gradients(
    call: Call, upstream: Upstream
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias for tokens that all count."""
    hidden_TH, weight_VH, bias = call.hidden_TH, call.weight_VH, call.bias
    low, wide = hidden_TH.dtype, call.temperature_T.dtype
    scale_T, cap = 1 / call.temperature_T, _scalar(call.softcap, call.temperature_T)
    logprob_T, lse_T, grad_T = upstream.logprob_T, upstream.lse_T, upstream.grad_T
    entropy_grad_T = upstream.entropy_grad_T
    entropy_T = lse_T if entropy_grad_T is None else upstream.entropy_T  # not read
    d_hidden = hidden_TH.new_zeros(hidden_TH.shape, dtype=wide) if upstream.need_hidden else None
    d_weight = (
        torch.empty_like(weight_VH, memory_format=torch.contiguous_format)
        if upstream.need_weight
        else None
    )
    d_bias = torch.empty_like(bias) if upstream.need_bias and bias is not None else None
    for rows, raw_TC in _chunks(call):
        d_TC = _dlogits(raw_TC, scale_T, cap, lse_T, entropy_T, grad_T, entropy_grad_T, low)
        at_B, column_B = _targets_within(call.target_T, rows)
        d_TC[at_B, column_B] = _target_dlogit(
            raw_TC[at_B, column_B], scale_T[at_B], cap, logprob_T[at_B], entropy_T[at_B],
            grad_T[at_B], None if entropy_grad_T is None else entropy_grad_T[at_B],
        ).to(low)  # fmt: skip
        if d_bias is not None:
            d_bias[rows] = d_TC.sum(0, dtype=wide)
        if d_hidden is not None:
            d_hidden += d_TC @ weight_VH[rows]
        if d_weight is not None:
            torch.mm(d_TC.T, hidden_TH, out=d_weight[rows])
    return None if d_hidden is None else d_hidden.to(low), d_weight, d_bias


def _combine(parts_S3T: Tensor) -> Tensor:
    """(max, Σ, weighted Σ) [3, T] of all parts together."""
    max_ST, sum_ST, weighted_ST = parts_S3T.unbind(1)
    max_T = max_ST.amax(0)
    lower_ST = torch.where(sum_ST > 0, max_ST - max_T, 0.0)
    scale_ST = torch.where(sum_ST > 0, lower_ST.exp(), 0.0)
    weighted_T = (scale_ST * (weighted_ST + sum_ST * lower_ST)).sum(0)
    return torch.stack([max_T, (scale_ST * sum_ST).sum(0), weighted_T])


def _targets_within(target_T: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """(tokens whose targets are among the rows, the columns of those targets)."""
    at = ((target_T >= rows.start) & (target_T < rows.stop)).nonzero()[:, 0]
    return at, target_T[at] - rows.start


def _shaped(raw_TC: Tensor, scale_T: Tensor, softcap: Tensor | None) -> Tensor:
    """z from raw logits: after cap and temperature, in the dtype of sums."""
    z_TC = raw_TC.to(scale_T.dtype)
    if softcap is not None:
        z_TC = torch.tanh(z_TC / softcap) * softcap
    return z_TC * scale_T[:, None]


def _plain_statistics(
    raw_TC: Tensor, scale_T: Tensor, softcap: Tensor | None, entropy: bool
) -> Tensor:
    """(max, Σ e^(z − max), Σ e^(z − max) (z − max)) [3, T] of one chunk; the last is 0 unless asked
    for.
    """
    z_TC = _shaped(raw_TC, scale_T, softcap)
    max_T = z_TC.amax(-1).clamp(
        min=torch.finfo(z_TC.dtype).min
    )  # a bias of −inf takes a token out of the vocabulary
    shifted_TC = z_TC - max_T[:, None]
    e_TC = shifted_TC.exp()
    weighted_T = (
        torch.where(e_TC > 0, e_TC * shifted_TC, 0.0).sum(-1)
        if entropy
        else torch.zeros_like(max_T)
    )
    return torch.stack([max_T, e_TC.sum(-1), weighted_T])


def _plain_dlogits(
    raw_TC: Tensor,
    scale_T: Tensor,
    softcap: Tensor | None,
    lse_T: Tensor,
    entropy_T: Tensor,
    grad_T: Tensor,
    entropy_grad_T: Tensor | None,
    low: torch.dtype,
) -> Tensor:
    """Gradient of raw logits [T, C] that are not the target's: −grad p and, for the entropy H,
    −grad p (log p + H), through the cap.
    """
    log_p_TC = _shaped(raw_TC, scale_T, softcap) - lse_T[:, None]
    p_TC = log_p_TC.exp()
    d_TC = -p_TC * grad_T[:, None]
    if entropy_grad_T is not None:
        d_TC = d_TC - torch.where(
            p_TC > 0, entropy_grad_T[:, None] * p_TC * (log_p_TC + entropy_T[:, None]), 0.0
        )
    if softcap is not None:
        d_TC = d_TC * (1 - torch.tanh(raw_TC.to(lse_T.dtype) / softcap) ** 2)
    return (d_TC * scale_T[:, None]).to(low)


def _target_dlogit(
    raw_B: Tensor,
    scale_B: Tensor,
    softcap: Tensor | None,
    logprob_B: Tensor,
    entropy_B: Tensor,
    grad_B: Tensor,
    entropy_grad_B: Tensor | None,
) -> Tensor:
    """The same for the targets' logits: grad (1 − p). From the log-prob, which is exact where p is
    nearly 1.
    """
    logprob_B = logprob_B.clamp(min=torch.finfo(logprob_B.dtype).min)  # 0 × −inf would be NaN
    d_B = -torch.expm1(logprob_B) * grad_B
    if entropy_grad_B is not None:
        d_B = d_B - entropy_grad_B * logprob_B.exp() * (logprob_B + entropy_B)
    if softcap is not None:
        d_B = d_B * (1 - torch.tanh(raw_B.to(d_B.dtype) / softcap) ** 2)
    return d_B * scale_B


_statistics, _dlogits = Fused(_plain_statistics), Fused(_plain_dlogits)


def _chunks(call: Call) -> Iterator[tuple[slice, Tensor]]:
    """(rows of the weight, raw logits [T, C]) for each chunk of the vocabulary; the next overwrites
    the logits.
    """
    low = call.hidden_TH.dtype
    wide = low if call.fast else torch.promote_types(low, torch.float32)
    left_TH = call.hidden_TH.to(wide)
    tokens, vocabulary = len(left_TH), len(call.weight_VH)
    size = min(max(CHUNK_LOGITS // max(tokens, 1), MIN_CHUNK), MAX_CHUNK, vocabulary)
    memory = left_TH.new_empty(tokens * size)
    for start in range(0, vocabulary, size):
        rows = slice(start, min(start + size, vocabulary))
        right_CH = call.weight_VH[rows].to(wide)
        raw_TC = memory[: tokens * len(right_CH)].view(tokens, len(right_CH))
        with _low_precision_products(low):
            torch.mm(left_TH, right_CH.T, out=raw_TC)
        if call.bias is not None:
            raw_TC += call.bias[rows]
        yield rows, raw_TC


def _scalar(number: float | None, like: Tensor) -> Tensor | None:
    return (
        None if number is None else like.new_tensor(number)
    )  # as a tensor it compiles once for all values


@contextmanager
def _low_precision_products(dtype: torch.dtype) -> Iterator[None]:
    """On a CPU, multiply float32 copies of bf16 numbers at bf16 speed; sums stay float32. A global
    flag: restored.
    """
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if dtype is torch.bfloat16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
