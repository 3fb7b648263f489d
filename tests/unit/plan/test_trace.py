"""Bytes that are alive, and the learner's own forward and backward without memory."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from sppo.errors import ConfigError
from sppo.plan import trace
from sppo.plan.micro_batch import Layout

LAYOUT = Layout(prompt=8, completions=4, longest=9, groups=4, budget=40, share_prompt=True)


def test_live_counts_what_is_there_and_what_was() -> None:
    given = torch.zeros(10)
    with trace.Live([given]) as live:
        first = given + 1
        assert (live.now, live.peak) == (40, 40)
        second = torch.zeros(100)
        del first
        view = second.view(10, 10)
        assert (live.now, live.peak) == (400, 440)
        del second, view
    assert (live.now, live.peak) == (0, 440)


def test_layers_computed_again_keep_their_input_alone() -> None:
    plain, again = counted(recomputed=False), counted(recomputed=True)
    states = 2 * 40 * 16  # of 40 tokens, bf16
    deeper = counted(recomputed=True, num_hidden_layers=5)
    assert deeper.kept - again.kept == 3 * states
    assert plain.kept > 2 * again.kept
    assert plain.peak > again.peak


def test_attention_of_a_gpu_keeps_no_matrix_of_scores() -> None:
    longer = Layout(*LAYOUT[:4], budget=400, share_prompt=True)._replace(groups=40)
    assert longer.tokens == 10 * LAYOUT.tokens
    short, long = counted(recomputed=False), counted(recomputed=False, layout=longer)
    assert long.kept == pytest.approx(10 * short.kept, rel=0.02)
    on_cpu = counted(recomputed=False, layout=longer, gpu=False)
    assert on_cpu.kept > long.kept


def test_experts_one_by_one_keep_what_experts_at_once_do() -> None:
    moe = AutoConfig.for_model(
        "mixtral", vocab_size=32, hidden_size=256, intermediate_size=256, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    found = []
    for how in ("grouped_mm", "eager"):
        moe._experts_implementation = how
        found.append(
            trace.activations(
                moe, LAYOUT.largest(), compute=torch.bfloat16, recomputed=False, gpu=True
            )
        )
    assert found[1].kept == pytest.approx(found[0].kept, rel=0.1)


def test_layers_that_look_at_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "head_of", lambda *_: torch.ones(1).nonzero())
    with pytest.raises(ConfigError, match=r"'llama' choose shapes by values"):
        counted(recomputed=False)


def counted(
    *, recomputed: bool, layout: Layout = LAYOUT, gpu: bool = True, num_hidden_layers: int = 2
) -> trace.Activations:
    tiny = AutoConfig.for_model(
        "llama", vocab_size=32, hidden_size=16, intermediate_size=32,
        num_hidden_layers=num_hidden_layers, num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    return trace.activations(
        tiny, layout.largest(), compute=torch.bfloat16, recomputed=recomputed, gpu=gpu
    )
