"""Attention for Transformers' continuous batching on a CPU: one product per sequence.

Its own path lays the keys of all sequences side by side and masks them, so that a step costs their number squared and
the mask takes (tokens of a step) × (tokens of the cache).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "sppo_paged"


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, cache: Any = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Of this step's tokens: `query` [1, heads, Q, D], `key`, `value` [1, kv_heads, Q, D]; returns [1, Q, heads, D]."""
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    q_ends, k_ends = kwargs["cu_seq_lens_q"].tolist(), kwargs["cu_seq_lens_k"].tolist()
    heads, kv_heads = query.shape[1], key.shape[1]
    shared = heads // kv_heads
    out = torch.zeros((1, query.shape[2], heads, query.shape[3]), dtype=query.dtype, device=query.device)
    for q0, q1, k0, k1 in zip(q_ends, q_ends[1:], k_ends, k_ends[1:], strict=False):
        q, k, v = query[:, :, q0:q1], key[:, :, k0:k1], value[:, :, k0:k1]
        fresh, seen = q1 - q0, k1 - k0
        if fresh == 1:  # the heads that share a key take the place of query positions: keys are not repeated
            q = q.reshape(1, kv_heads, shared, -1)
            part = scaled_dot_product_attention(q, k, v, scale=scaling).reshape(1, heads, 1, -1)
        else:
            whole = fresh == seen
            mask = None if whole else torch.ones(fresh, seen, dtype=torch.bool, device=q.device).tril_(seen - fresh)
            k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
            part = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=whole, scale=scaling)
        out[:, q0:q1] = part.transpose(1, 2)
    return out, None


def install(model: Any) -> None:
    """Have this model use it; after `init_continuous_batching`, which accepts its own names only."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)
