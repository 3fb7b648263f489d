"""FlexAttention, traced as it is on a GPU, over micro-batches of many lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from sppo.learner import attention, blocks, pieces
from tests import families as tiny

SHAPES = [
    (150, (90, 260, 1, 40)),
    (401, (333, 20)),
    (77, (500, 10)),
    (300, (300,) * 3),
    (9, (700,)),
]


def test_it_is_compiled_for_a_kind_of_layer_and_not_for_each_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced = []

    def keep(module: Any, _: Any) -> Any:
        traced.append(module)
        return module.forward

    torch._dynamo.reset()
    compiled = torch.compile(flex_attention, backend=keep, fullgraph=True)
    monkeypatch.setattr(blocks, "_flex", lambda _: compiled)
    how: Any = {"scale": 0.25, "softcap": 2.0, "sinks_H": None}
    rules = [causal_mask_function, sliding_window_causal_mask_function(100)]
    for number, (prompt, lengths) in enumerate(SHAPES):
        batch = tiny.batch(tiny.group(prompt, lengths, number), rows="packed")
        q, k, v = (torch.randn(1, h, batch.tokens_BL.shape[1], 16) for h in (4, 2, 2))
        for rule in rules:
            found = blocks.attend(q, k, v, blocks.block_mask(batch, rule), **how)
            cut = pieces.cut(batch.spans, rule, torch.float32, q.device)
            true = attention.forward(None, q, k, v, cut, scaling=0.25, softcap=2.0)[0]
            assert torch.allclose(found, true.transpose(1, 2), atol=1e-5)
    # Once with the lengths that came first, once for all others
    assert len(traced) <= 2 * len(rules)


def test_a_model_whose_layers_it_attends_for_is_the_same() -> None:
    from transformers import AutoModelForCausalLM

    attention.install()
    model = AutoModelForCausalLM.from_config(
        tiny.tiny("gemma2"), attn_implementation="packed"
    ).eval()
    batch = tiny.batch(*tiny.several(), rows="packed")
    with torch.no_grad():
        flex, plain = (attention.hidden_states(model.model, batch, flex=f) for f in (True, False))
    assert torch.allclose(flex, plain, atol=1e-5)
