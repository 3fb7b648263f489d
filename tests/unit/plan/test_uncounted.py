"""A plan of any family is made, or one line says why not."""

from __future__ import annotations

import pytest

from sppo.errors import ConfigError
from sppo.plan import known, learner, roles, shape, uncounted
from sppo.plan.uncounted import UncountedError
from tests import families
from tests.makers import run_config

COUNTED = (
    "bamba", "gemma4_text", "gptj", "mpt", "mamba2", "gpt2", "mimo_v2_flash", "hy_v4", "jetmoe",
    "longcat_flash", "hrm_text", "minimax", "openai-gpt",
)  # fmt: skip
"""Layers that follow from their number, or differ in their heads; attention of their own; hidden
states in float32; a warning that looks at values; values wider than keys; layers that read the
mask; experts by counts and one by one; stacks that are run several times; buffers in the computing
format, which files hold and do not hold.
"""
TOLD = ("llama4_text",)
"""On a CPU its mask looks at values."""


@pytest.mark.parametrize("name", COUNTED)
def test_a_family_is_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert counted(name, monkeypatch) > 0


@pytest.mark.parametrize("name", TOLD)
def test_a_family_that_cannot_be_counted_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UncountedError, match=r"^model\.name: .*cannot be counted") as caught:
        counted(name, monkeypatch, gpu=False)
    assert "\n" not in str(caught.value)


def test_an_error_of_the_models_code_is_one_line_and_a_users_stays() -> None:
    config = families.tiny("llama")
    told = r"a 'llama' does .* \(KeyError: 'a key'\)$"
    with pytest.raises(UncountedError, match=told) as caught, uncounted.told(config):
        raise KeyError("a key")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ConfigError, match="to be mended"), uncounted.told(config):
        raise ConfigError("to be mended")
    with pytest.raises(AssertionError), uncounted.told(config):
        raise AssertionError


def counted(name: str, monkeypatch: pytest.MonkeyPatch, *, gpu: bool = True) -> int:
    """Bytes at the peak of a small model of a family."""
    config = shape.with_layers(families.tiny(name), 2)
    if name == "hrm_text":
        config.num_layers_per_stack = 1
    monkeypatch.setattr(known, "config_of", lambda _: config)
    run = run_config(
        model={"name": f"tiny {name}"}, task={"max_prompt_tokens": 4},
        sampling={"max_tokens": 4, "completions": 2}, learner={"micro_batch_tokens": 16},
    )  # fmt: skip
    assert roles.generator(run, None).weights > 0
    return learner.rank(run, gpu=gpu).peak
