"""A model's files are checked before anything starts; each refusal names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from sppo import models
from sppo.errors import ConfigError
from sppo.launch import model_check
from tests import families as tiny
from tests.makers import run_config


def check(path: str, **sections: Any) -> Any:
    run = run_config(
        model={"name": path},
        **{"task": {"max_prompt_tokens": 64}, "sampling": {"max_tokens": 32, "completions": 2}}
        | sections,
    )
    return model_check.check(run, path, models.load_tokenizer(path))


def refusal(path: str, **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(path, **sections)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(tiny.save("llama", tmp_path))


@pytest.mark.parametrize(
    "name", ["llama", "llama, tied", "qwen3_moe", "hrm_text", "gpt_neox", "lfm2", "apertus"]
)
def test_a_whole_model_passes(name: str, tmp_path: Path) -> None:
    assert check(tiny.save(name, tmp_path)).name == name.partition(",")[0]


def drop(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights[name]
        save_file(weights, folder / "model.safetensors")

    return damage


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def unlisted(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model-1.safetensors")
    listed = dict.fromkeys(weights, "model-1.safetensors") | {
        "lm_head.weight": "model-2.safetensors"
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def wider(folder: Path) -> None:
    change(folder / "config.json", intermediate_size=128)


def quantised(folder: Path) -> None:
    change(folder / "config.json", quantization_config={"quant_method": "awq", "bits": 4})


def without_end(folder: Path) -> None:
    change(folder / "config.json", eos_token_id=None)
    (folder / "generation_config.json").unlink(missing_ok=True)
    change(folder / "tokenizer_config.json", eos_token=None)
    change(folder / "tokenizer.json")


def far_end(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[2, 5000])


def other_tokenizer(folder: Path) -> None:
    from tests.makers import tiny_tokenizer

    tiny_tokenizer(folder, vocabulary=tiny.VOCABULARY + 50)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            drop("model.layers.1.mlp.up_proj.weight"),
            "lack 1 weights of a LlamaForCausalLM, 'model.layers.1.mlp.up",
        ),
        (cut, "model.safetensors cannot be read"),
        (unlisted, "model-2.safetensors is missing"),
        (pickled, "no model.safetensors, but pytorch_model.bin"),
        (wider, "by config.json"),
        (quantised, "quantised weights (awq)"),
        (without_end, "names a token that ends a completion"),
        (far_end, "eos_token_id 5000 is beyond"),
        (other_tokenizer, "tokens up to 146, the model has 97 rows"),
    ],
)
def test_what_is_wrong_with_the_files_is_named(
    damage: Callable[[Path], None], said: str, model: Path
) -> None:
    damage(model)
    assert said in refusal(str(model))


def test_an_added_token_beyond_the_rows_is_no_reason_to_refuse(model: Path) -> None:
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(model / "tokenizer.json"))
    made.add_special_tokens([f"<for_images_{i}>" for i in range(tiny.VOCABULARY)])
    made.save(str(model / "tokenizer.json"))
    check(str(model))


def test_an_expert_that_is_missing_is_found(tmp_path: Path) -> None:
    path = Path(tiny.save("qwen3_moe", tmp_path))
    drop("model.layers.2.mlp.experts.1.up_proj.weight")(path)
    assert "model.layers.2.mlp.experts" in refusal(str(path))


def test_ranks_read_parameters_by_their_own_names(tmp_path: Path) -> None:
    path = tiny.save("qwen3_moe", tmp_path)
    assert "use learner.ranks = 1" in refusal(path, learner={"ranks": 2})


def test_a_context_that_is_too_short_names_both_settings_and_the_limit(model: Path) -> None:
    said = refusal(
        str(model), task={"max_prompt_tokens": 200}, sampling={"max_tokens": 100, "completions": 2}
    )
    for part in (
        "task.max_prompt_tokens = 200",
        "sampling.max_tokens = 100",
        "300",
        "256 (max_position_embeddings)",
    ):
        assert part in said


LONG = {"rope_type": "longrope", "short_factor": [1.0] * 16, "long_factor": [4.0] * 16}


@pytest.mark.parametrize(
    ("name", "changes", "limit"),
    [
        ("llama", {}, 256),
        ("gpt2", {}, 256),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 1024),
        (
            "llama",
            {
                "rope_scaling": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 64,
                }
            },
            256,
        ),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, 256),
        ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 64}, 64),
        ("mamba2", {}, None),
        ("bloom", {}, None),
    ],
)
def test_the_context_of_a_configuration(
    name: str, changes: dict[str, Any], limit: int | None
) -> None:
    plain = tiny.tiny(name).to_dict()
    if changes:
        plain.pop("rope_parameters", None)
    found = model_check.context(AutoConfig.for_model(**plain | changes))
    assert (found[0] if found else None) == limit


def test_a_generation_config_that_transformers_does_not_write_is_exported_as_it_is(
    model: Path, tmp_path: Path
) -> None:
    change(model / "generation_config.json", temperature=0.9, top_p=0.6)
    check(str(model))
    policy = tiny.learner(str(model))
    policy.export(tmp_path / "export", torch.float32)
    there = (tmp_path / "export" / "generation_config.json").read_text()
    assert there == (model / "generation_config.json").read_text()


def test_adapters_on_layers_that_are_not_there_are_refused(model: Path) -> None:
    assert check(str(model), adapter={"rank": 4}).name == "llama"
    said = refusal(str(model), adapter={"rank": 4, "layers": ["q_proj", "qkv"]})
    assert "adapter.layers: " in said
    assert "no linear layer 'qkv' below its head; it has down_proj" in said
