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


@pytest.mark.parametrize(
    "name", ["llama", "gemma2", "gemma3_text", "gpt_oss", "llama4_text", "deepseek_v3", "mixtral"]
)
def test_windows_chunks_caps_and_sinks_are_those_of_the_pieces(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    # Given torch's own reference of it, which is not traced first
    flag = "torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    monkeypatch.setattr(flag, True)
    attention.install()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        tiny.tiny(name), attn_implementation="packed", dtype=torch.float32
    ).eval()
    batch = tiny.batch(*tiny.several(), rows="packed")
    with torch.no_grad():
        flex, plain = (attention.hidden_states(model.model, batch, flex=f) for f in (True, False))
    assert (flex - plain).abs().max() < 1e-5 * plain.abs().max()
