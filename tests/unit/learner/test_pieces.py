"""Pieces against the dense masks of the same rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import (
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)

from sppo.learner import pieces
from sppo.learner.batching import Span

RULES: dict[str, Any] = {
    "full": causal_mask_function,
    "window": sliding_window_causal_mask_function(5),
    "chunks": chunked_causal_mask_function(6, torch.zeros(1, dtype=torch.int64)),
}
SPANS = (Span(0, 0, 7, (3, 9, 0, 2)), Span(0, 21, 1, (4, 4)), Span(0, 30, 13, (6,)))
LENGTH = 49
CPU = torch.device("cpu")


def dense(spans: tuple[Span, ...], rule: Any) -> Tensor:
    """[L, L] what each token may see."""
    prompt, own, position = torch.tensor(
        [
            (span.start, at, first + i)
            for span in spans
            for at, n, first in span.segments()
            for i in range(n)
        ]
    ).T
    related = (own[:, None] == own) | (prompt[:, None] == own)
    zero = torch.zeros(1, 1, dtype=torch.int64)
    seen: Tensor = related & rule(zero, zero, position[:, None], position[None])
    return seen


@pytest.mark.parametrize("block", [1, 4, 64])
@pytest.mark.parametrize("rule", RULES)
def test_pieces_are_the_dense_attention(
    rule: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "BLOCK", block)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, LENGTH, 4, requires_grad=True) for _ in range(3))
    seen = dense(SPANS, RULES[rule])
    made = pieces.cut(SPANS, RULES[rule], torch.float32, CPU)
    results = [
        pieces.attend(scaled_dot_product_attention, made, q, k, v),
        scaled_dot_product_attention(q, k, v, seen),
    ]
    assert torch.allclose(*results, atol=1e-6)
    weights = torch.randn(LENGTH, 4)
    own, true = (torch.autograd.grad((r * weights).sum(), (q, k, v)) for r in results)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(own, true, strict=True))
    assert int(seen.sum()) <= made.spent


def test_what_is_needed_is_what_a_token_may_see() -> None:
    assert pieces.needed(SPANS) == int(dense(SPANS, causal_mask_function).sum())


@pytest.mark.parametrize(
    ("span", "most"),
    [(Span(0, 0, 1024, (2047,) * 4), 1.05), (Span(0, 0, 512, (255,) * 8), 1.15)],
)
def test_little_more_is_spent_than_needed_on_long_completions(span: Span, most: float) -> None:
    made = pieces.cut((span,), causal_mask_function, torch.bfloat16, CPU)
    assert pieces.needed((span,)) <= made.spent <= most * pieces.needed((span,))


def test_a_window_leaves_out_what_lies_before_it() -> None:
    span = Span(0, 0, 2000, (1000,) * 4)
    cut = partial(pieces.cut, (span,), dtype=torch.bfloat16, device=CPU)
    narrow = cut(sliding_window_causal_mask_function(256))
    assert narrow.spent < cut(causal_mask_function).spent / 4
    assert all(keys.stop - keys.start < 1300 for w in narrow.windows[1:] for keys in w.keys)


def test_completions_of_one_prompt_share_their_masks() -> None:
    made = pieces.cut((Span(0, 0, 300, (200,) * 4),), causal_mask_function, torch.float32, CPU)
    masks = {piece.mask_QK.data_ptr() for window in made.windows for piece in window.pieces}
    assert len(masks) == 3 + 2
