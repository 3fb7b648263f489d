"""The products that a step cannot do without."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig

from sppo import compute
from sppo.bench import learner_limit
from sppo.config import RunConfig
from tests import makers


def config(path: str = "smollm2-135m", **learner: object) -> RunConfig:
    given = {"model": {"name": path}, "compute": "float32", "learner": learner}
    return compute.decided(makers.run_config(**given), cuda=False)  # type: ignore[arg-type]


def test_prompts_count_once_and_padding_not() -> None:
    groups = [makers.group(size=3), makers.group("train-000000001", size=2)]
    # prompts of 3; completions of 1, 2, 3 tokens, the last of each only predicted
    assert learner_limit.fed(config(micro_batch_tokens=100), groups) == [(6 + 4, 6 + 3)]


def test_attention_counts_the_pairs_that_see_each_other() -> None:
    tiny = AutoConfig.for_model(
        "llama", hidden_size=8, num_attention_heads=2, num_hidden_layers=3, head_dim=4
    )
    # the prompt's 6 pairs; completions of 2 and 3 tokens: 1 x 3 + 1, 2 x 3 + 3
    pairs = 6 + 4 + 9
    assert learner_limit.attention_flops(tiny, [makers.group(size=3)]) == 3 * 4 * pairs * 8 * 3


def test_seconds_are_those_of_all_layers(tmp_path: Path) -> None:
    path = makers.tiny_model(tmp_path)
    assert 0 < learner_limit.seconds(config(path), [makers.group(size=2)]) < 1
