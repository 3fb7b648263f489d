"""A packed row's attention by FlexAttention, with a block mask that is read off the segments.

Which blocks of queries see which blocks of keys follows from the ends of the segments alone: each
block is cut into runs of one segment, and two runs are compared by their first and last positions.
No score is masked that lies in a block which is seen as a whole, none is computed in one which is
not seen, and nothing of size [L, L] is made.

Shape suffixes: L tokens of the row, R runs, N blocks of the row, H query heads, G key heads, D head
size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sppo.learner.batching import MicroBatch, Span
from sppo.learner.pieces import Rule

BLOCK = 128
"""Queries and keys of a block: what FlexAttention's kernels take on every GPU."""


LEAST_HEAD = 16
"""FlexAttention's kernels take no head of fewer values."""
LIMIT = 64
"""Times that FlexAttention may be compiled: for each kind of layer with gradients and without, for
rows of one block and of any length.
"""
_CPU = torch.device("cpu")


def takes(config: Any) -> bool:
    """Whether its kernels compute a model of this configuration."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return bool(min(size, getattr(config, "v_head_dim", None) or size) >= LEAST_HEAD)


def block_mask(batch: MicroBatch, rule: Rule) -> Any:
    """The BlockMask of one packed row under a layer's rule of positions."""
    from torch.nn.attention.flex_attention import BlockMask

    device, length = batch.tokens_BL.device, batch.tokens_BL.shape[1]
    whole_NN, some_NN = seen(batch.spans, rule, device)
    counts, indices = _listed(some_NN & ~whole_NN)
    full_counts, full_indices = _listed(whole_NN)
    return BlockMask.from_kv_blocks(
        counts, indices, full_counts, full_indices, BLOCK_SIZE=BLOCK,
        mask_mod=_by_token(batch, rule), seq_lengths=(length, length),
    )  # fmt: skip


def spent(mask: Any) -> int:
    """Pairs of tokens whose score a BlockMask has computed, by its own count of blocks."""
    return int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()) * BLOCK * BLOCK


def seen(spans: tuple[Span, ...], rule: Rule, device: torch.device = _CPU) -> tuple[Tensor, Tensor]:
    """[N, N] whether all of a block of keys is seen by all of a block of queries, and whether any
    is.
    """
    runs = _runs(spans)
    segment_R, prompt_R, first_R, last_R = torch.tensor(runs, device=device)[:, 1:].T
    zero = torch.zeros(1, 1, dtype=torch.int64, device=device)
    q_first, q_last, k_first, k_last = first_R[:, None], last_R[:, None], first_R, last_R
    related = (segment_R[:, None] == segment_R) | (prompt_R[:, None] == segment_R)
    nearest = rule(zero, zero, q_first, k_last)  # or they overlap, and a token sees itself
    overlap = (k_last >= q_first) & (q_last >= k_first)
    some = related & (nearest | overlap)
    whole = related & nearest & rule(zero, zero, q_last, k_first)
    starts = [i for i, run in enumerate(runs) if i == 0 or runs[i - 1][0] < run[0]]
    length = sum(span.tokens for span in spans)
    some_NN, whole_NN = _reduced(some, starts), ~_reduced(~whole, starts)
    if length % BLOCK:
        whole_NN[-1] = whole_NN[:, -1] = False
    return whole_NN, some_NN


def attend(
    q_HLD: Tensor, k_GLD: Tensor, v_GLD: Tensor, mask: Any, *,
    scale: float, softcap: float | None, sinks_H: Tensor | None,
) -> Tensor:  # fmt: skip
    """[1, H, L, D] of tensors with a first dimension of one row."""
    from torch.nn.attention.flex_attention import AuxRequest

    # Beyond the limit it would go on uncompiled, with a matrix of all pairs.
    with torch._dynamo.config.patch(recompile_limit=LIMIT, fail_on_recompile_limit_hit=True):
        found: Any = _flex(q_HLD.is_cuda)(
            q_HLD, k_GLD, v_GLD, score_mod=None if softcap is None else _cap(softcap),
            block_mask=mask, scale=scale, enable_gqa=q_HLD.shape[1] != k_GLD.shape[1],
            return_aux=None if sinks_H is None else AuxRequest(lse=True),
        )  # fmt: skip
    if sinks_H is None:
        out: Tensor = found
        return out
    out, aux = found  # a sink takes its part of the sum, and gives nothing
    kept = torch.sigmoid(aux.lse - sinks_H.float().view(1, -1, 1))
    return (out * kept[..., None]).to(out.dtype)


@cache
def _flex(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention


@cache
def _cap(softcap: float) -> Callable[..., Tensor]:
    def capped(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped


def _by_token(batch: MicroBatch, rule: Rule) -> Callable[..., Tensor]:
    position_L, segment_L, prompt_L = (
        batch.positions_BL[0], batch.segments_BL[0], batch.prompts_BL[0],
    )  # fmt: skip

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        related = (segment_L[q] == segment_L[k]) | (prompt_L[q] == segment_L[k])
        found: Tensor = related & rule(b, h, position_L[q], position_L[k])
        return found

    return mask


def _runs(spans: tuple[Span, ...]) -> list[tuple[int, int, int, int, int]]:
    """Block, segment, its prompt, first and last position of each run of one segment in one block,
    in the row's order.
    """
    found = []
    for span in spans:
        for at, n, first in span.segments():
            start = at
            while start < at + n:
                stop = min(at + n, (start // BLOCK + 1) * BLOCK)
                found.append(
                    (start // BLOCK, at, span.start, first + start - at, first + stop - at - 1)
                )
                start = stop
    return found


def _reduced(pairs_RR: Tensor, starts: list[int]) -> Tensor:
    """[N, N] whether any pair of runs of two blocks is True."""
    for _ in range(2):
        zero = torch.zeros_like(pairs_RR[:1], dtype=torch.int32)
        counts = torch.cat([zero, pairs_RR.cumsum(0, dtype=torch.int32)])
        pairs_RR = (counts[[*starts[1:], -1]] > counts[starts]).T
    return pairs_RR


def _listed(chosen_NN: Tensor) -> tuple[Tensor, Tensor]:
    """[1, 1, N] how many blocks of keys, [1, 1, N, N] which ones first."""
    order = chosen_NN.int().argsort(dim=-1, descending=True, stable=True)
    counts = chosen_NN.sum(-1)
    return counts[None, None].int(), order[None, None].int().contiguous()
