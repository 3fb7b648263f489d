"""Weights and cache of a model, from its configuration."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from sppo.config import AdapterConfig, ModelConfig
from sppo.learner.adapters import Adapters
from sppo.plan import known, shape


@pytest.mark.parametrize(
    ("name", "parameters", "cached"),
    [
        # As the models' pages give them.
        ("smollm2-135m", 134_515_008, 30 * 2 * 3 * 64),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304, 28 * 2 * 2 * 128),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512, 28 * 2 * 4 * 128),
        ("mistralai/Mistral-7B-Instruct-v0.2", 7_241_732_096, 32 * 2 * 8 * 128),
    ],
)
def test_published_models_have_their_published_sizes(
    name: str, parameters: int, cached: int
) -> None:
    found = shape.of(known.config_of(ModelConfig(name=name)), name)
    assert (found.parameters, found.cached) == (parameters, cached)
    assert found.root.all + found.layers * found.layer.all == parameters
    assert found.trained == found.weights


def test_rank_0_has_the_most_rows() -> None:
    found = shape.of(tiny(), "tiny")
    assert shape.rows(found.weights, 1) == found.parameters
    assert shape.rows({"an embedding": (10, 8)}, 4) == 3 * 8  # 3, 3, 3 and 1


def test_a_head_of_its_own_is_told() -> None:
    assert shape.of(tiny(), "tiny").head == (0, 0)
    assert shape.of(tiny(tie_word_embeddings=False), "tiny").head == (80, 80)


def test_adapters_alone_are_trained() -> None:
    adapted = Adapters(settings=AdapterConfig(rank=2, layers=("q_proj",)), seed=0)
    found = shape.of(tiny(), "tiny", adapted)
    assert found.adapted
    assert found.parameters == shape.of(tiny(), "tiny").parameters
    assert sorted(found.trained.values()) == [(2, 8), (2, 8), (8, 2), (8, 2)]
    assert (found.layer.trained, found.root.trained) == (32, 0)


def test_layers_without_attention_and_latent_attention_cache_less() -> None:
    kinds = ["linear_attention", "full_attention"]
    hybrid = AutoConfig.for_model(
        "qwen3_next", num_hidden_layers=2, layer_types=kinds, num_key_value_heads=2, head_dim=8
    )
    assert shape._cache(hybrid, 2) == (1 * 2 * 2 * 8, 2)
    latent = AutoConfig.for_model(
        "deepseek_v3", num_hidden_layers=3, kv_lora_rank=16, qk_rope_head_dim=4
    )
    assert shape._cache(latent, 3) == (3 * 20, 1)


def test_recurrent_layers_alone_cache_nothing() -> None:
    assert shape._cache(AutoConfig.for_model("mamba2"), 64) == (0, 1)


def test_kinds_of_layers_that_follow_from_their_number_are_cut_with_it() -> None:
    for name in ("falcon_h1", "jamba", "bamba"):
        cut = shape.with_layers(AutoConfig.for_model(name, num_hidden_layers=8), 3)
        assert (cut.num_hidden_layers, len(cut.layer_types)) == (3, 3)
    given = AutoConfig.for_model("qwen2", num_hidden_layers=4, layer_types=["full_attention"] * 4)
    assert len(shape.with_layers(given, 2).layer_types) == 2


def tiny(**given: object) -> object:
    return AutoConfig.for_model(
        "llama", vocab_size=10, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, **{"tie_word_embeddings": True, **given},
    )  # fmt: skip
