"""A model's configuration without its weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo import config
from sppo.config import ModelConfig
from sppo.errors import ConfigError
from sppo.plan import known
from tests import makers


def test_every_model_that_a_preset_names_is_known(tmp_path: Path) -> None:
    named = {config.load(preset, environment=False).model.name for preset in config.presets()}
    assert named == set(known.KNOWN)


def test_a_folder_says_it_by_itself(tmp_path: Path) -> None:
    found = known.config_of(ModelConfig(name=makers.tiny_model(tmp_path)))
    assert (found.model_type, found.hidden_size) == ("llama", 32)


def test_the_hubs_cache_comes_before_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    makers.tiny_model(tmp_path)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(tmp_path / "config.json")
    )
    assert known.config_of(ModelConfig(name="Qwen/Qwen2.5-7B-Instruct")).hidden_size == 32


def test_an_unknown_model_is_an_error_that_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hf download some/model config\.json"):
        known.config_of(ModelConfig(name="some/model"))
    with pytest.raises(ConfigError, match=r"there is no config\.json in such a folder"):
        known.config_of(ModelConfig(name=str(tmp_path)))
