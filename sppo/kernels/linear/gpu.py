"""The Triton path of `linear_logprob`: logits live in registers, tile by tile, and in the backward
pass as the low-precision gradient of one bounded chunk of the vocabulary.

Forward: tiles of tokens × splits of the vocabulary. Each split keeps, for each of its tokens, the
maximum, Σ e and Σ e·(z − maximum); the one split that holds the target keeps its logit; a small
kernel combines the splits. Backward: for each chunk of the vocabulary a kernel computes the tiles
again and writes their gradient in the inputs' dtype; two matrix products take it from there. No
atomics: the same bits on every run.

A tile of ignored tokens costs nothing, and nothing waits for the device: a target outside the
vocabulary turns its log-prob, its log-sum-exp and the gradients to NaN instead.

Shape suffixes: T tokens, H hidden, V vocabulary, S splits of the vocabulary, C columns of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from sppo.kernels.inputs import launching_on, only_above_0
from sppo.kernels.linear.call import Call, Upstream
from sppo.kernels.linear.gpu_kernels import combine_kernel, forward_kernel, gradient_kernel
from sppo.kernels.tiles import CHUNK_BYTES, SPLIT, Tile, backward_tile, forward_tile

COMBINED = 128  # tokens of one program of the combining kernel
CHUNK_STEP = 256
"""A chunk's columns are a multiple: rows aligned, and only the vocabulary's last tiles ragged."""


def forward(call: Call, *, tile: Tile | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(log-prob, entropy, log-sum-exp), float32 [T]; the entropy is empty unless it is asked
    for.
    """
    (tokens, width), vocabulary = call.hidden_TH.shape, len(call.weight_VH)
    tile = tile or forward_tile(call.hidden_TH)
    temperature_T, entropy = only_above_0(call.temperature_T), call.return_entropy
    logprob_T, lse_T, picked_T = (torch.empty_like(temperature_T) for _ in range(3))
    entropy_T = torch.empty_like(temperature_T) if entropy else temperature_T.new_empty(0)
    if tokens == 0:
        return logprob_T, entropy_T, lse_T
    full, splits = vocabulary // SPLIT, triton.cdiv(vocabulary, SPLIT)
    max_ST, sum_ST = (temperature_T.new_empty(splits, tokens) for _ in range(2))
    weighted_ST = temperature_T.new_empty(splits, tokens) if entropy else None
    hidden_TH, weight_VH = _aligned(call.hidden_TH), _aligned(call.weight_VH)
    matrices = _operands(hidden_TH, weight_VH, tile)
    with launching_on(hidden_TH):
        for first, count in ((0, full), (full, splits - full)):  # all full ones, the ragged one
            if count:
                forward_kernel[(triton.cdiv(tokens, tile.BM), count)](
                    *matrices, call.bias, call.target_T, temperature_T,
                    max_ST, sum_ST, weighted_ST, picked_T,
                    tokens, vocabulary, width, hidden_TH.stride(0), weight_VH.stride(0), first,
                    call.ignore_index, SPLIT=SPLIT, SOFTCAP=call.softcap, HAS_ENTROPY=entropy,
                    EVEN_V=first < full, **_options(tile, hidden_TH),
                )  # fmt: skip
        combine_kernel[(triton.cdiv(tokens, COMBINED),)](
            max_ST, sum_ST, weighted_ST, picked_T, call.target_T, logprob_T, entropy_T, lse_T,
            tokens, vocabulary, splits, call.ignore_index, HAS_ENTROPY=entropy, BM=COMBINED,
        )  # fmt: skip
    return logprob_T, entropy_T, lse_T


def backward(
    call: Call, upstream: Upstream, *, tile: Tile | None = None, chunk_bytes: int = CHUNK_BYTES
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias, in their dtypes, where they are needed."""
    weight_VH, bias = call.weight_VH, call.bias
    hidden_TH = torch.where(
        (call.target_T != call.ignore_index)[:, None], call.hidden_TH, 0.0
    )  # 0 × NaN of an ignored token is NaN
    d_hidden_TH = (
        torch.zeros(hidden_TH.shape, dtype=torch.float32, device=hidden_TH.device)
        if upstream.need_hidden
        else None
    )
    d_weight_VH = (
        torch.empty_like(weight_VH, memory_format=torch.contiguous_format)
        if upstream.need_weight
        else None
    )
    d_bias = torch.empty_like(bias) if upstream.need_bias and bias is not None else None
    chunks = _chunks(call._replace(hidden_TH=hidden_TH), upstream, tile, chunk_bytes)
    for rows, d_TC in chunks:
        if d_hidden_TH is not None:
            d_hidden_TH += _product(d_TC, weight_VH[rows])
        if d_weight_VH is not None:
            with _sums_in_float32():
                torch.mm(d_TC.T, hidden_TH, out=d_weight_VH[rows])
        if d_bias is not None:
            d_bias[rows] = d_TC.sum(0, dtype=torch.float32)
    return None if d_hidden_TH is None else d_hidden_TH.to(hidden_TH.dtype), d_weight_VH, d_bias


def _chunks(
    call: Call, upstream: Upstream, tile: Tile | None, chunk_bytes: int
) -> Iterator[tuple[slice, Tensor]]:
    """(rows of the weight, gradient of their logits [T, C]) for each chunk of the vocabulary; the
    next overwrites the gradient.
    """
    (tokens, width), vocabulary = call.hidden_TH.shape, len(call.weight_VH)
    tile = tile or backward_tile(call.hidden_TH, softcap=call.softcap is not None)
    each = max(1, tokens * call.hidden_TH.element_size())
    columns = chunk_bytes // each // CHUNK_STEP * CHUNK_STEP
    columns = max(min(columns, triton.cdiv(vocabulary, CHUNK_STEP) * CHUNK_STEP), CHUNK_STEP)
    gradient_TC = call.hidden_TH.new_empty(tokens, columns)
    hidden, weight = _aligned(call.hidden_TH), _aligned(call.weight_VH)
    for start in range(0, vocabulary, columns):
        rows = slice(start, min(start + columns, vocabulary))
        width_C = rows.stop - start
        chunk_TC = gradient_TC[:, :width_C]
        if tokens:
            down, across = triton.cdiv(tokens, tile.BM), triton.cdiv(width_C, tile.BN)
            with launching_on(hidden):
                gradient_kernel[(down * across,)](
                    *_operands(hidden, weight[rows], tile),
                    None if call.bias is None else call.bias[rows], call.target_T,
                    call.temperature_T, upstream.logprob_T, upstream.lse_T, upstream.entropy_T,
                    upstream.grad_T, upstream.entropy_grad_T, chunk_TC,
                    tokens, width_C, start, width, hidden.stride(0), weight.stride(0),
                    columns, call.ignore_index, SOFTCAP=call.softcap,
                    HAS_ENTROPY=upstream.entropy_grad_T is not None,
                    EVEN_V=width_C % tile.BN == 0, **_options(tile, hidden),
                )  # fmt: skip
        yield rows, chunk_TC


def _product(left: Tensor, right: Tensor) -> Tensor:
    """A matrix product kept in float32."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


@contextmanager
def _sums_in_float32() -> Iterator[None]:
    """Keep cuBLAS from adding up parts of a long sum in the inputs' dtype. Global flags:
    restored.
    """
    matmul = torch.backends.cuda.matmul
    before = (
        matmul.allow_bf16_reduced_precision_reduction,
        matmul.allow_fp16_reduced_precision_reduction,
    )
    matmul.allow_bf16_reduced_precision_reduction = (
        matmul.allow_fp16_reduced_precision_reduction
    ) = False
    try:
        yield
    finally:
        (
            matmul.allow_bf16_reduced_precision_reduction,
            matmul.allow_fp16_reduced_precision_reduction,
        ) = before


def _aligned(matrix: Tensor) -> Tensor:
    """The same numbers in rows that start at multiples of 16 bytes; copied only where they do
    not.
    """
    each, (rows, width) = matrix.element_size(), matrix.shape
    if (
        matrix.stride(1) == 1
        and matrix.stride(0) * each % 16 == 0 < matrix.stride(0)
        and matrix.data_ptr() % 16 == 0
    ):
        return matrix
    padded = matrix.new_empty(rows, triton.cdiv(width * each, 16) * 16 // each)
    return padded[:, :width].copy_(matrix)


def _operands(hidden_TH: Tensor, weight_VH: Tensor, tile: Tile) -> tuple[Any, Any]:
    if not tile.tma:
        return hidden_TH, weight_VH
    return (
        TensorDescriptor.from_tensor(hidden_TH, [tile.BM, tile.BK]),
        TensorDescriptor.from_tensor(weight_VH, [tile.BN, tile.BK]),
    )


def _options(tile: Tile, inputs: Tensor) -> dict[str, Any]:
    """float32 products are made of three tf32 ones: exact to about 1e-6, where one alone is to
    1e-3.
    """
    return {
        "PRECISION": "tf32x3" if inputs.dtype == torch.float32 else "tf32",
        "TMA": tile.tma, "PARTS": tile.parts, "BM": tile.BM, "BN": tile.BN, "BK": tile.BK,
        "num_warps": tile.num_warps, "num_stages": tile.num_stages,
    }  # fmt: skip
