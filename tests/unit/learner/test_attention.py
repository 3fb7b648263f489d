"""Attention as Transformers calls it: what a layer's mask says, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.learner import attention


def by_hand(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, cap: float | None, sink: Tensor | None
) -> Tensor:
    """Query by query."""
    out = torch.zeros_like(q)
    for h in range(q.shape[1]):
        for i in range(q.shape[2]):
            scores = k[0, h // 2] @ q[0, h, i] * 0.3
            scores = scores if cap is None else cap * torch.tanh(scores / cap)
            e = torch.where(seen[i], scores.exp(), 0.0)
            rest = 0.0 if sink is None else sink[h].exp()
            out[0, h, i] = e @ v[0, h // 2] / (e.sum() + rest)
    return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("sinks", [False, True])
def test_caps_sinks_and_groups_of_heads(masked: bool, cap: float | None, sinks: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, h, 6, 4) for h in (4, 2, 2))
    sink = torch.randn(4) if sinks else None
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    seen = causal.triu(-2) if masked else causal
    found, _ = attention.forward(
        None, q, k, v, seen[None, None] if masked else None, scaling=0.3, softcap=cap, s_aux=sink
    )
    assert torch.allclose(found.transpose(1, 2), by_hand(q, k, v, seen, cap, sink), atol=1e-6)


@pytest.mark.parametrize("given", [{"dropout": 0.1}, {"position_bias": torch.zeros(1)}])
def test_what_would_be_left_out_is_refused(given: dict[str, Any]) -> None:
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(NotImplementedError, match="no dropout and no bias of positions"):
        attention.forward(None, x, x, x, None, **given)
