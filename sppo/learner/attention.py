"""The learner's own attention, under the name `packed` among Transformers' implementations.

What a layer's mask is (`sppo.learner.masks`) says how it is computed: piece by piece, by
FlexAttention, or as Transformers' `sdpa` does where a row holds one completion. Caps of the scores
and sinks are part of it, for whichever family passes them.

Shape suffixes: B rows, H query heads, G key heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from sppo.learner import blocks, masks, pieces
from sppo.learner.batching import MicroBatch
from sppo.learner.pieces import Pieces


def install() -> None:
    """Make it known to Transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register("packed", forward)
    masks.install()


def hidden_states(model: Any, batch: MicroBatch, *, flex: bool) -> Tensor:
    """[B, L, H] of a model without its head. Rows of one completion are given as they are: padding
    comes after what is looked at.
    """
    if batch.rows == "completion":
        return cast(Tensor, model(input_ids=batch.tokens_BL, use_cache=False).last_hidden_state)
    with masks.rows(batch, flex=flex):
        found: Tensor = model(
            input_ids=batch.tokens_BL, position_ids=batch.positions_BL.clamp(min=0),
            attention_mask=masks.ones(batch), use_cache=False,
        ).last_hidden_state  # fmt: skip
    return found


def forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *,
    scaling: float | None = None, softcap: float | None = None, s_aux: Tensor | None = None,
    dropout: float = 0.0, position_bias: Tensor | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """[B, Q, H, D], as Transformers calls it.

    Raises NotImplementedError for what it would leave out.
    """
    if dropout or position_bias is not None:
        raise NotImplementedError("packed attention has no dropout and no bias of positions")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(attention_mask, Pieces):
        one = partial(attend, scale=scale, softcap=softcap, sinks_H=s_aux)
        found = pieces.attend(one, attention_mask, query, key, value)
    elif attention_mask is None or isinstance(attention_mask, Tensor):
        found = attend(
            query, key, value, attention_mask, scale=scale, softcap=softcap, sinks_H=s_aux
        )
    else:
        found = blocks.attend(
            query, key, value, attention_mask, scale=scale, softcap=softcap, sinks_H=s_aux
        )
    return found.transpose(1, 2).contiguous(), None


def attend(
    q_BHQD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, mask: Tensor | None, *,
    scale: float, softcap: float | None, sinks_H: Tensor | None,
) -> Tensor:  # fmt: skip
    """[B, H, Q, D]; without a mask, causal."""
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q_BHQD.dtype)
    grouped = q_BHQD.shape[1] != k_BGKD.shape[1]
    if softcap is None and sinks_H is None:
        if grouped and q_BHQD.is_cuda:  # with a mask, none of its fast kernels takes groups
            k_BGKD, v_BGKD = _repeated(k_BGKD, q_BHQD), _repeated(v_BGKD, q_BHQD)
        return functional.scaled_dot_product_attention(
            q_BHQD, k_BGKD, v_BGKD, attn_mask=mask, scale=scale, is_causal=mask is None,
            enable_gqa=grouped and not q_BHQD.is_cuda,
        )  # fmt: skip
    return _by_hand(q_BHQD, k_BGKD, v_BGKD, mask, scale, softcap, sinks_H)


def _by_hand(
    q_BHQD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, mask: Tensor | None,
    scale: float, softcap: float | None, sinks_H: Tensor | None,
) -> Tensor:  # fmt: skip
    scores = q_BHQD @ _repeated(k_BGKD, q_BHQD).transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = (
        scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    ).float()
    if sinks_H is not None:
        sinks = sinks_H.float().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], -1)
    weights = scores.softmax(-1)[..., : k_BGKD.shape[2]].to(q_BHQD.dtype)
    return weights @ _repeated(v_BGKD, q_BHQD)


def _repeated(x_BGKD: Tensor, q_BHQD: Tensor) -> Tensor:
    times = q_BHQD.shape[1] // x_BGKD.shape[1]
    return x_BGKD if times == 1 else x_BGKD.repeat_interleave(times, 1)
