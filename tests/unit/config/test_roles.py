"""[generator], [scorer], [weights], [launch] and [eval] by themselves."""

from __future__ import annotations

import pytest

from sppo.config import GeneratorConfig, JudgeConfig, ScorerConfig


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host", "must start with http:// or https://"),
        ("http://me:secret@host", "SPPO_SCORER__TOKEN"),
        ("http://", "names no host"),
        ("http://host:99999", "0-65535"),
    ],
)
def test_an_address_that_cannot_be_a_scorers_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScorerConfig(url=url)


def test_a_scorers_address_ends_without_a_slash() -> None:
    assert ScorerConfig(url="http://host:8001/").url == "http://host:8001"


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_an_engine_has_a_share_of_a_gpu(share: float) -> None:
    with pytest.raises(ValueError, match="gpu_memory_utilization"):
        GeneratorConfig(gpu_memory_utilization=share)


def test_a_judge_is_made_with_its_own_section_and_nothing_else() -> None:
    judge = {"url": "http://h", "model": "m", "api_key": "k", "prices": [1, 2]}
    made = ScorerConfig.model_validate({"name": "llm-judge", "judge": judge})
    assert made.keeps_time
    assert made.class_options == JudgeConfig.model_validate(judge).model_dump(mode="json") | {
        "api_key": "k"
    }
    with pytest.raises(ValueError, match=r"options\.model: .* are scorer\.judge\.<setting>"):
        ScorerConfig.model_validate({"name": "llm-judge", "judge": judge, "options": {"model": 1}})


def test_other_scorers_are_made_with_their_options() -> None:
    mine = ScorerConfig(name="my:Own", options={"a": 1})
    assert (mine.class_options, mine.keeps_time) == ({"a": 1}, False)


def test_a_judge_among_the_parts_of_a_sum_has_its_section_too() -> None:
    parts = [{"name": "exact-match"}, {"name": "llm-judge", "weight": 0.5}]
    judge = {"url": "http://h", "model": "m", "mode": "rating"}
    made = ScorerConfig.model_validate(
        {"name": "compose", "judge": judge, "options": {"parts": parts}}
    )
    first, second = made.class_options["parts"]
    assert first == parts[0]
    assert (second["weight"], second["options"]["url"]) == (0.5, "http://h")
    assert made.keeps_time
    assert made.options == {"parts": parts}
