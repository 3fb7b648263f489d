"""Block masks against the dense masks of the same rows, and FlexAttention by its reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from sppo.learner import attention, batching, blocks, pieces
from sppo.learner.batching import Span
from sppo.types import Group
from tests import families as tiny
from tests.unit.learner.test_pieces import LENGTH, RULES, SPANS, dense

LONG = [tiny.group(150, (90, 260, 1, 40)), tiny.group(3, (70, 128), 1), tiny.group(300, (30,), 2)]
_DIRECTLY = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
_WIDE = sliding_window_causal_mask_function(100)


def packed(groups: list[Group]) -> batching.MicroBatch:
    return tiny.batch(*groups, rows="packed")


@pytest.mark.parametrize("block", [1, 4, 7, 64])
@pytest.mark.parametrize("rule", RULES)
def test_blocks_are_those_that_hold_a_pair_that_is_seen(
    rule: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", block)
    whole_NN, some_NN = blocks.seen(SPANS, RULES[rule])
    n = -(-LENGTH // block)
    padded = torch.zeros(n * block, n * block, dtype=torch.bool)
    padded[:LENGTH, :LENGTH] = dense(SPANS, RULES[rule])
    tiles = padded.view(n, block, n, block).transpose(1, 2).flatten(2)
    assert torch.equal(some_NN, tiles.any(-1))
    assert torch.equal(whole_NN, tiles.all(-1))


@pytest.mark.parametrize("rule", [causal_mask_function, _WIDE])
def test_a_block_mask_is_the_one_that_torch_makes_of_every_pair(rule: blocks.Rule) -> None:
    batch = packed(LONG)
    made, length = blocks.block_mask(batch, rule), batch.tokens_BL.shape[1]
    true = create_block_mask(made.mask_mod, None, None, length, length, device="cpu")
    assert torch.equal(made.to_dense(), true.to_dense())
    assert made.seq_lengths == true.seq_lengths
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(made, name), getattr(true, name)), name
    assert blocks.spent(made) == int(made.to_dense().sum()) * blocks.BLOCK**2


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("sinks", [False, True])
def test_flex_attention_is_the_dense_attention(
    softcap: float | None, sinks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given torch's own reference of it, which is not traced first
    monkeypatch.setattr(torch.nn.attention.flex_attention, _DIRECTLY, True)
    batch = packed(LONG)
    torch.manual_seed(0)
    length = batch.tokens_BL.shape[1]
    q, k, v = (torch.randn(1, h, length, 16) for h in (4, 2, 2))
    options: Any = {"scale": 0.25, "softcap": softcap, "sinks_H": torch.randn(4) if sinks else None}
    made = blocks.block_mask(batch, causal_mask_function)
    found = blocks.attend(q, k, v, made, **options)
    seen = create_mask(made.mask_mod, None, None, length, length, device="cpu")
    assert torch.allclose(found, attention.attend(q, k, v, seen, **options), atol=1e-5)


@pytest.mark.parametrize("completion", [512, 4096, 16384])
@pytest.mark.parametrize("prompt", [1024, 1000])
def test_long_groups_spend_little_more_than_needed(prompt: int, completion: int) -> None:
    """The counts of a block mask, without the tokens."""
    spans = (Span(0, 0, prompt, (completion - 1,) * 8),)
    _, some_NN = blocks.seen(spans, causal_mask_function)
    spent = int(some_NN.sum()) * blocks.BLOCK**2
    assert spent <= (1.10 if completion > 1000 else 1.5) * pieces.needed(spans)


def test_heads_that_its_kernels_do_not_take_are_known_from_the_configuration() -> None:
    from transformers import DeepseekV3Config, LlamaConfig

    wide = LlamaConfig(hidden_size=64, num_attention_heads=4)
    assert blocks.takes(wide)
    assert not blocks.takes(LlamaConfig(hidden_size=64, num_attention_heads=8))
    assert blocks.takes(LlamaConfig(hidden_size=64, num_attention_heads=8, head_dim=16))
    assert not blocks.takes(DeepseekV3Config(v_head_dim=8))
