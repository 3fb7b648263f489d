"""The configuration of a model by its name: from its folder or the hub's cache, else as its authors
published it, for the models that presets name. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sppo import families, hub_cache, models
from sppo.config import ModelConfig
from sppo.errors import ConfigError
from sppo.plan.uncounted import UncountedError

_QWEN = {"model_type": "qwen2", "max_position_embeddings": 32768}

KNOWN: Mapping[str, Mapping[str, Any]] = {
    "smollm2-135m": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576,
        "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-1.5B-Instruct": {
        **_QWEN, "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        **_QWEN, "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "mistralai/Mistral-7B-Instruct-v0.2": {
        "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 32768, "sliding_window": None,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
"""What of config.json gives weights and activations their shapes."""


def config_of(model: ModelConfig) -> Any:
    """The Transformers configuration. Raises ConfigError where nobody knows it, with how to get
    it; UncountedError where a run would fetch it.
    """
    if folder := _folder(model):
        return families.read_config(str(folder), model.name)
    if model.name in KNOWN:
        from transformers import AutoConfig

        given = dict(KNOWN[model.name])
        return AutoConfig.for_model(given.pop("model_type"), **given)
    if hub_cache.is_path(model.name):
        raise ConfigError(
            f"model.name = {model.name!r}: there is no config.json in such a folder; name one that "
            "has it, or a hub id"
        )
    raise UncountedError(
        f"model.name = {model.name!r}: its config.json is not on this machine; fetch it: "
        f"hf download {model.name} config.json"
    )


def _folder(model: ModelConfig) -> Path | None:
    """Where its config.json is, if it is here."""
    if model.name == models.PACKAGED:
        return None
    if (Path(model.name) / "config.json").is_file():
        return Path(model.name)
    if hub_cache.is_path(model.name):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.name, "config.json", revision=model.revision or None)
    return Path(found).parent if isinstance(found, str) else None
