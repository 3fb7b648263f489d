"""Operations spent and needed, by counting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import AutoConfig

from sppo.bench import learner_count
from sppo.bench.learner_count import LARGE, Count
from sppo.plan.micro_batch import Layout

LAYOUT = Layout(prompt=20, completions=2, longest=31, groups=1, budget=1000, share_prompt=True)
TINY = AutoConfig.for_model(
    "llama", vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=4,
    num_attention_heads=2, num_key_value_heads=1,
)  # fmt: skip


def test_linear_layers_spend_what_they_need() -> None:
    weights = 16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 24
    assert learner_count.matrices(TINY) == weights
    batch = LAYOUT.largest()
    # 20 tokens of the prompt and twice 30: forward, and two gradients of each product
    assert learner_count.layers_flops(TINY, 4, batch, False) == 6 * 4 * 80 * weights
    # forward again, but for the last product, whose result nothing needs
    again = 8 * weights - 2 * 16 * 24
    assert learner_count.layers_flops(TINY, 4, batch, True) == 4 * 80 * again


def test_pairs_are_those_of_blocks_or_of_pieces() -> None:
    assert learner_count.spent_pairs(LAYOUT, blockwise=True) == 128 * 128
    needed = 20 * 21 // 2 + 2 * (30 * 20 + 30 * 31 // 2)
    assert needed < learner_count.spent_pairs(LAYOUT, blockwise=False) < 128 * 128


def test_a_7b_models_long_group_is_within_the_bars() -> None:
    found = learner_count.count(LARGE, 8, 1024, 8, 4096)
    assert found.attention <= 1.10
    assert found.rest == 1  # linear layers spend what they need, whatever else is computed again
    assert 1 < found.logits <= 1.05
    assert found.tokens == 8192
    assert found.needed < found.spent < found.spent_again
    assert all(check.ok for check in learner_count.checks([found]))


def test_what_is_beyond_a_bar_is_told() -> None:
    one = Count(
        shape=learner_count.JUDGED, model=LARGE, attention=1.2, rest=1.01, logits=1.02, needed=10,
        spent=11, spent_again=12, kept=1, peak=2, tokens=3, ranks=8,
    )  # fmt: skip
    assert [check.ok for check in learner_count.checks([one])] == [False, True, True]
    small = replace(one, model="a small one", shape="1 + 2 x 3", logits=1.06)
    assert [check.ok for check in learner_count.checks([small])] == [None, True, None]
    wasteful = replace(small, rest=1.06)
    assert [check.ok for check in learner_count.checks([wasteful])] == [None, False, None]
    assert "1.200" in learner_count.table([one])[1]
    for gib, fits in ((30, True), (31, False)):
        large = replace(one, shape=learner_count.LONGEST, peak=gib * 2**30)
        assert [check.ok for check in learner_count.checks([large])] == [None, True, True, fits]


@pytest.mark.parametrize(("given", "found"), [({}, 8), ({"head_dim": 4}, 4)])
def test_heads_may_have_a_width_of_their_own(given: dict[str, int], found: int) -> None:
    made = AutoConfig.for_model("llama", hidden_size=16, num_attention_heads=2, **given)
    assert learner_count.width(made) == found
