"""Attention for Transformers' continuous batching: one product per sequence.

Its own path lays the keys of all sequences side by side and masks them, so that a step costs their
number squared and the mask takes (tokens of a step) × (tokens of the cache). Nor does it know caps
of the attention logits.
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
    """Of this step's tokens: `query` [1, heads, Q, D], `key`, `value` [1, kv_heads, Q, D]; returns
    [1, Q, heads, D].

    Keyword arguments of the layer: a `sliding_window`, a `softcap` of the logits, sinks `s_aux`
    [heads].
    """
    if kwargs.get("position_bias") is not None or cache is None:
        raise NotImplementedError(
            f"{type(module).__name__} attends in a way that is not known here"
        )
    window, cap, sinks = kwargs.get("sliding_window"), kwargs.get("softcap"), kwargs.get("s_aux")
    key, value = cache.update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
    )
    q_ends, k_ends = kwargs["cu_seq_lens_q"].tolist(), kwargs["cu_seq_lens_k"].tolist()
    out = query.new_zeros((1, query.shape[2], query.shape[1], value.shape[-1]))
    for q0, q1, k0, k1 in zip(q_ends, q_ends[1:], k_ends, k_ends[1:], strict=False):
        q, k, v = query[:, :, q0:q1], key[:, :, k0:k1], value[:, :, k0:k1]
        if cap or sinks is not None:
            part = _capped(q, k, v, _mask(q, k, window), scaling, cap, sinks)
        else:
            part = _plain(q, k, v, window, scaling)
        out[:, q0:q1] = part.transpose(1, 2)
    return out, None


def _plain(q: Tensor, k: Tensor, v: Tensor, window: int | None, scaling: float | None) -> Tensor:
    heads, fresh, seen = q.shape[1], q.shape[2], k.shape[2]
    shared = heads // k.shape[1]
    if fresh == 1 and not (window and seen > window):
        # The heads that share a key take the place of query positions: keys are not repeated.
        q = q.reshape(1, k.shape[1], shared, -1)
        return scaled_dot_product_attention(q, k, v, scale=scaling).reshape(1, heads, 1, -1)
    whole = fresh == seen and not (window and seen > window)
    k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    mask = None if whole else _mask(q, k, window)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=whole, scale=scaling)


def _capped(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    scaling: float | None,
    cap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    shared = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    logits = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if cap:
        logits = torch.tanh(logits / cap) * cap
    logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    if sinks is not None:
        sink = sinks.to(logits.dtype).reshape(1, -1, 1, 1).expand(-1, -1, logits.shape[2], 1)
        logits = torch.cat([logits, sink], -1)
    weights = logits.softmax(-1, dtype=torch.float32).to(v.dtype)
    return weights[..., : k.shape[2]] @ v


def _mask(q: Tensor, k: Tensor, window: int | None) -> Tensor:
    """True where a query may see a key: the last query is of the last key, and a window counts from
    each query.
    """
    fresh, seen = q.shape[2], k.shape[2]
    mask = torch.ones(fresh, seen, dtype=torch.bool, device=q.device).tril_(seen - fresh)
    return mask.triu_(seen - fresh - window + 1) if window else mask


def install(model: Any) -> None:
    """Have this model use it; after `init_continuous_batching`, which accepts its own names
    only.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)
