"""A plan of any family is made, or one line says why not."""

from __future__ import annotations

import pytest

from sppo.errors import ConfigError
from sppo.plan import known, learner, roles, uncounted
from sppo.plan.uncounted import UncountedError
from tests import families
from tests.makers import run_config

COUNTED = ("bamba", "gemma4_text", "gptj", "mpt", "mamba2", "gpt2", "mimo_v2_flash")
"""Layers that follow from their number, or differ in their heads; attention of their own; hidden
states in float32; a warning that looks at values; values wider than keys.
"""
TOLD = ("jetmoe", "minimax", "hrm_text")
"""Shapes by values, floats beside the computing weights, no list of layers."""


@pytest.mark.parametrize("name", COUNTED)
def test_a_family_is_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert counted(name, monkeypatch) > 0


@pytest.mark.parametrize("name", TOLD)
def test_a_family_that_cannot_be_counted_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UncountedError, match=r"^model\.name: .*(cannot be counted|no list)"
    ) as caught:
        counted(name, monkeypatch)
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


def counted(name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes at the peak of a small model of a family."""
    monkeypatch.setattr(known, "config_of", lambda _: families.tiny(name))
    run = run_config(
        model={"name": f"tiny {name}"}, task={"max_prompt_tokens": 4},
        sampling={"max_tokens": 4, "completions": 2}, learner={"micro_batch_tokens": 16},
    )  # fmt: skip
    assert roles.generator(run, None).weights > 0
    return learner.rank(run, gpu=True).peak
