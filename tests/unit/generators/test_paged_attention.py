"""One product per sequence against plain attention, with windows, caps and sinks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.generators.paged_attention import attend

HEADS, SHARED, WIDTH = 4, 2, 8
FRESH, SEEN = [3, 1, 2], [3, 5, 6]
"""Tokens of this step and of the cache: a prefill, a decode, and a part of a prompt."""


class Cache:
    """Gives the keys and values of all sequences, whatever it is told."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        self._both = key, value

    def update(self, **_: Any) -> tuple[Tensor, Tensor]:
        return self._both


def plain(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, cap: float | None, sinks: Tensor | None
) -> Tensor:
    """[heads, Q, D], written out token by token."""
    out = torch.zeros(HEADS, q.shape[1], WIDTH)
    for h in range(HEADS):
        for i in range(q.shape[1]):
            last = k.shape[1] - q.shape[1] + i
            first = max(0, last - window + 1) if window else 0
            keys = k[h // SHARED, first : last + 1]
            logits = keys @ q[h, i] * WIDTH**-0.5
            if cap:
                logits = cap * torch.tanh(logits / cap)
            if sinks is not None:
                logits = torch.cat([logits, sinks[h : h + 1]])
            weights = logits.softmax(0)[: len(keys)]
            out[h, i] = weights @ v[h // SHARED, first : last + 1]
    return out


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("sink", [False, True])
def test_each_sequence_attends_to_itself_alone(
    window: int | None, cap: float | None, sink: bool
) -> None:
    torch.manual_seed(0)
    query = torch.randn(1, HEADS, sum(FRESH), WIDTH)
    key, value = (torch.randn(1, HEADS // SHARED, sum(SEEN), WIDTH) for _ in range(2))
    sinks = torch.randn(HEADS) if sink else None
    ends_q, ends_k = (torch.tensor([0, *n]).cumsum(0) for n in (FRESH, SEEN))
    out, _ = attend(
        SimpleNamespace(layer_idx=0), query, key, value, None, cache=Cache(key, value),
        cu_seq_lens_q=ends_q, cu_seq_lens_k=ends_k,
        sliding_window=window, softcap=cap, s_aux=sinks,
    )  # fmt: skip
    for i in range(len(FRESH)):
        of_q = slice(int(ends_q[i]), int(ends_q[i + 1]))
        of_k = slice(int(ends_k[i]), int(ends_k[i + 1]))
        wanted = plain(query[0, :, of_q], key[0, :, of_k], value[0, :, of_k], window, cap, sinks)
        torch.testing.assert_close(out[0, of_q].transpose(0, 1), wanted, atol=1e-5, rtol=1e-5)


def test_what_is_not_known_is_refused() -> None:
    some = torch.zeros(1, 1, 1, 1)
    with pytest.raises(NotImplementedError, match="SimpleNamespace attends"):
        attend(SimpleNamespace(layer_idx=0), some, some, some, None, position_bias=some)
