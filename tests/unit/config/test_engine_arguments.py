"""What a run may say to vLLM's engine, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from sppo import config
from sppo.config import engine_arguments
from sppo.errors import ConfigError


def loaded(*overrides: str) -> config.RunConfig:
    return config.load("quickstart", list(overrides), environment=False)


def test_any_other_argument_is_passed_on() -> None:
    found = loaded(
        "generator.vllm.enforce_eager=true",
        "generator.vllm.compilation_config={cudagraph_mode='PIECEWISE'}",
        "generator.vllm.cudagraph_capture_sizes=[1, 2, 4]",
        "generator.vllm.quantization=fp8",
    ).generator.vllm
    assert found["enforce_eager"] is True
    assert found["cudagraph_capture_sizes"] == [1, 2, 4]
    assert found["compilation_config"] == {"cudagraph_mode": "PIECEWISE"}
    assert found["quantization"] == "fp8"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("max_num_seqs=8", "max_num_seqs = 8: set generator.max_groups and sampling.completions"),
        ("dtype=half", "set compute"),
        ("worker_extension_cls=x:y", "the generator sets it itself"),
        ("_api_process_count=2", "the generator sets it itself"),
        ("logits_processors=['x:y']", "changes the logits that are sampled from"),
        ("override_generation_config={top_p=0.9}", "brings sampling defaults such as top_p"),
        ("logprobs_mode=raw_logprobs", "would record other log-probs"),
        ("speculative_config={rejection_sample_method='synthetic'}", "the model would not sample"),
        ("speculative_config=4", "the model would not sample"),
        ("pipeline_parallel_size=0", "must be a whole number"),
        ("pipeline_parallel_size=true", "must be a whole number"),
        ("data_parallel_size=1.5", "must be a whole number"),
        ("data_parallel_size_local=1", "the copies of an engine are on one machine"),
        ("distributed_executor_backend=ray", "the generator chooses"),
    ],
)
def test_what_would_bend_the_distribution_or_is_said_elsewhere_is_refused(
    given: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=r"generator\.vllm") as caught:
        loaded(f"generator.vllm.{given}")
    assert words in str(caught.value)


def test_exact_guessing_is_let_through() -> None:
    given = "generator.vllm.speculative_config={method='ngram', num_speculative_tokens=3}"
    assert loaded(given).generator.vllm["speculative_config"]["method"] == "ngram"


def test_parallel_engines_take_their_product_of_gpus() -> None:
    found = loaded(
        "generator.tensor_parallel=2", "generator.vllm.pipeline_parallel_size=3",
        "generator.vllm.data_parallel_size=4",
    )  # fmt: skip
    assert (found.generator.devices, found.generator.copies) == (24, 4)


def test_the_other_engine_reads_none_of_it_and_the_old_name_says_the_new_one() -> None:
    with pytest.raises(ConfigError, match=r"generator\.vllm\.enforce_eager: .*does not read it"):
        loaded("generator.engine=transformers", "generator.vllm.enforce_eager=true")
    with pytest.raises(ConfigError, match=r"enforce_eager: now generator\.vllm\.enforce_eager"):
        loaded("generator.enforce_eager=true")


def test_no_name_is_refused_for_two_reasons() -> None:
    groups: list[Any] = [engine_arguments.ELSEWHERE, engine_arguments.OURS, engine_arguments.BENT]
    groups.append(engine_arguments.NOT_YET)
    names = [name for group in groups for name in group]
    assert len(names) == len(set(names))
