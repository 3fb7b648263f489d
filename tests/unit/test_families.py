"""Which families are taken, by name and by what changes within one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sppo import families
from sppo.errors import ConfigError
from tests import families as tiny
from tests.makers import run_config


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("t5", "encoder with a decoder"),
        ("gemma3", "parts for images"),
        ("recurrent_gemma", "refused: its log-probs depend"),
        ("bert", "not known to give exact"),
    ],
)
def test_a_family_that_is_not_exact_is_refused_by_name(name: str, reason: str) -> None:
    from transformers import CONFIG_MAPPING

    with pytest.raises(ConfigError, match=reason) as caught:
        families.of(CONFIG_MAPPING[name](), "some/model")
    assert repr(name) in str(caught.value)
    assert "some/model" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shares", "attention"),
    [
        ("llama", True, "packed"),
        ("mistral", True, "packed"),
        ("gemma2", True, "packed"),
        ("gpt_oss", True, "packed"),
        ("bloom", False, "eager"),  # ALiBi counts along the row
        ("falcon", True, "sdpa"),
        ("codegen", True, "eager"),  # there is no sdpa of it
        ("falcon, alibi", False, "eager"),
        ("lfm2", False, "sdpa"),
        ("qwen3_next", False, "sdpa"),
    ],
)
def test_rows_and_attention_are_chosen_by_family(name: str, shares: bool, attention: str) -> None:
    family = families.of(tiny.tiny(name), name)
    assert (family.shares, family.attention) == (shares, attention)


def test_no_family_is_in_two_lists() -> None:
    assert not families.SHARED & families.SEPARATE
    assert not set(families.REFUSED) & (families.SHARED | families.SEPARATE)
    assert families.UNPAGED <= families.SHARED


def test_sharing_a_prompt_is_off_where_it_is_not_exact(tmp_path: Path) -> None:
    tiny.tiny("llama").save_pretrained(str(tmp_path / "llama"))
    tiny.tiny("lfm2").save_pretrained(str(tmp_path / "lfm2"))

    def settled(name: str, **learner: Any) -> bool:
        return families.settled(
            run_config(learner=learner), str(tmp_path / name)
        ).learner.share_prompt

    assert settled("llama") is True
    assert settled("llama", share_prompt=False) is False
    assert settled("lfm2") is False


@pytest.mark.parametrize("name", ["mamba2", "bloom", "deepseek_v3", "gptj"])
def test_an_engine_that_computes_a_family_otherwise_is_refused_with_the_other(name: str) -> None:
    family = families.of(tiny.tiny(name), name)
    with pytest.raises(ConfigError, match=r"'transformers'.*use generator\.engine = 'vllm'"):
        families.check_engine(family, "transformers", name)


def test_vllm_on_a_cpu_is_refused_for_what_it_does_not_run_there() -> None:
    mamba, delta = (families.of(tiny.tiny(name), name) for name in ("mamba", "qwen3_next"))
    with pytest.raises(ConfigError, match=r"'mamba'.*needs a GPU"):
        families.check_engine(mamba, "vllm", "m", on_cpu=True)
    with pytest.raises(ConfigError, match="use compute = 'bfloat16'"):
        families.check_engine(delta, "vllm", "m", on_cpu=True, number_format="float32")
    families.check_engine(delta, "vllm", "m", on_cpu=True, number_format="bfloat16")
    families.check_engine(mamba, "vllm", "m")
    gpt_oss = families.of(tiny.tiny("gpt_oss"), "m")
    with pytest.raises(ConfigError, match="does not take new weights of 'gpt_oss'"):
        families.check_engine(gpt_oss, "vllm", "m")


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ConfigError, match=r"config\.json.*no-such-model"):
        families.read(str(tmp_path))


def test_engines_compute_by_an_implementation_of_transformers(tmp_path: Path) -> None:
    found = {}
    for name in ("llama", "gemma2"):
        path = tiny.save(name, tmp_path / name)
        found[name] = (
            families.read(path).attention, families.plain_attention(families.read_config(path))
        )  # fmt: skip
    assert found == {"llama": ("packed", "sdpa"), "gemma2": ("packed", "eager")}
