"""Adapters: what peft computes, merged for engines, by themselves in checkpoints and exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.config import AdapterConfig
from sppo.errors import ConfigError
from sppo.families import Rows
from sppo.learner import batching
from sppo.learner.adapters import Adapters
from sppo.learner.model import Logprobs, Policy
from sppo.types import Group
from tests import families as tiny
from tests.unit.learner.tiny import TEMPERATURE, moved

SETTINGS = AdapterConfig(rank=4, alpha=6.0)


def adapted(path: str, compute: torch.dtype = torch.float32, **changes: Any) -> Policy:
    settings = SETTINGS.model_copy(update=changes)
    return Policy(
        path, device="cpu", logprobs=Logprobs(temperature=TEMPERATURE), compute=compute,
        adapted=Adapters(settings=settings, seed=3),
    )  # fmt: skip


def whole(path: str, weights: dict[str, Tensor], compute: torch.dtype = torch.float32) -> Policy:
    """A policy without adapters that has these weights."""
    made = Policy(path, device="cpu", logprobs=Logprobs(temperature=TEMPERATURE), compute=compute)
    with torch.no_grad():
        for name, p in made.module.named_parameters():
            p.copy_(weights[name])
    return made


def batch(groups: list[Group], *, rows: Rows = "packed") -> batching.MicroBatch:
    parts = [batching.Part(0, 0, len(groups[0].completions))]
    return batching.collate(groups, parts, rows=rows, device="cpu")


def test_adapters_alone_are_trained_with_the_gradients_that_peft_gives(
    path: str, groups: list[Group]
) -> None:
    from peft import LoraConfig, get_peft_model

    model = adapted(path)
    moved(model)
    plain = whole(
        path,
        dict(
            Policy(
                path, device="cpu", logprobs=Logprobs(temperature=1.0), compute=torch.float32
            ).kept()
        ),
    )
    theirs = get_peft_model(
        plain.module,
        LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    values = {f"base_model.model.{name}": p for name, p in model.master.items()}
    trained = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    assert set(trained) == set(values)
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(values[name])
    given, probe = batch(groups), torch.randn(200)
    for policy in (model, plain):
        logprob_T, _ = policy.logprobs(given)
        (logprob_T * probe[: len(logprob_T)]).sum().backward()
    for name, p in trained.items():
        assert p.grad is not None
        assert torch.allclose(values[name].grad, p.grad, rtol=1e-5, atol=1e-7), name
    assert all(p.grad is None for n, p in model.module.named_parameters() if n not in model.master)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_merged_weights_are_the_policy_under_the_names_of_the_base_model(
    path: str, groups: list[Group], compute: torch.dtype
) -> None:
    model = adapted(path, compute)
    moved(model, 0.1)
    base = Policy(path, device="cpu", logprobs=Logprobs(temperature=1.0), compute=compute)
    published = dict(model.weights())
    assert list(published) == [name for name, _ in base.weights()]
    assert all(w.dtype is compute for w in published.values())
    with torch.no_grad():
        expected_T, _ = model.logprobs(batch(groups))
        found_T, _ = whole(path, published, compute).logprobs(batch(groups))
        before_T, _ = base.logprobs(batch(groups))
    tolerance = 1e-5 if compute is torch.float32 else 0.05
    assert (found_T - expected_T).abs().max() < tolerance < (before_T - expected_T).abs().max()


def test_the_first_adapters_are_the_base_model_and_a_snapshot_of_them_the_reference(
    path: str, groups: list[Group]
) -> None:
    model = adapted(path)
    base = Policy(
        path, device="cpu", logprobs=Logprobs(temperature=TEMPERATURE), compute=torch.float32
    )
    model.keep("reference", device="cpu")
    moved(model)
    with torch.no_grad():
        expected_T, _ = base.logprobs(batch(groups))
        assert not torch.allclose(model.logprobs(batch(groups))[0], expected_T, atol=1e-3)
        with model.using("reference"):
            assert torch.equal(model.logprobs(batch(groups))[0], expected_T)
    assert set(dict(model.kept("reference"))) == set(model.master)
    reference = dict(model.weights("reference"))
    assert all(torch.equal(reference[name], w) for name, w in base.weights())


def test_adapters_begin_alike_for_a_seed(path: str) -> None:
    first, again = adapted(path), adapted(path, torch.bfloat16)
    other = Policy(
        path, device="cpu", logprobs=Logprobs(temperature=1.0), compute=torch.float32,
        adapted=Adapters(settings=SETTINGS, seed=4),
    )  # fmt: skip
    assert all(torch.equal(first.master[n], p) for n, p in again.master.items())
    changed = {n for n, p in other.master.items() if not torch.equal(first.master[n], p)}
    assert changed == {n for n in first.master if "lora_A" in n}


@pytest.mark.parametrize("name", ["glm4_moe", "gpt2"])
def test_an_export_is_the_merged_model_and_the_adapters_as_peft_loads_them(
    name: str, tmp_path: Path
) -> None:
    from peft import PeftModel

    path = tiny.save(name, tmp_path / "base")
    model = adapted(path)
    moved(model)
    model.export(tmp_path / "export", torch.bfloat16)
    merged = tiny.load(str(tmp_path / "export"))
    written = json.loads((tmp_path / "export" / "config.json").read_text(encoding="utf-8"))
    assert written["dtype"] == "bfloat16"
    expected = {
        n: w.bfloat16().float() for n, w in model._merged(dict(model.masters()), torch.float32)
    }
    found = {n: p.detach().float() for n, p in merged.named_parameters()}
    assert set(found) == set(expected)
    assert all(torch.equal(found[n], w) for n, w in expected.items())
    theirs = PeftModel.from_pretrained(tiny.load(path), str(tmp_path / "export" / "adapter"))
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        mine = model.module(input_ids=tokens).logits
        assert torch.allclose(theirs(input_ids=tokens).logits, mine, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (("q_prj",), r"no linear layer 'q_prj' .* it has down_proj, gate_proj, .*q_proj"),
        (("q_proj", "lm_head"), "no linear layer 'lm_head' below its head"),
        (("embed_tokens",), "'embed_tokens'"),
    ],
)
def test_layers_that_are_not_there_are_refused(
    path: str, layers: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^adapter.layers: .*{said}"):
        adapted(path, layers=layers)


def test_adapters_go_where_they_are_asked_for(path: str) -> None:
    model = adapted(path, layers=("q_proj", "layers.1.mlp.up_proj"))
    names = {name.partition(".lora_")[0] for name in model.master}
    assert names == {
        "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    }  # fmt: skip


def test_what_peft_takes_for_experts_and_what_is_read_gets_none(tmp_path: Path) -> None:
    model = adapted(tiny.save("glm4_moe", tmp_path / "mixture"))  # its first layer is dense
    assert {name.partition(".lora_")[0].rpartition(".")[2] for name in model.master} == {
        "q_proj", "k_proj", "v_proj", "o_proj",
    }  # fmt: skip
    path = tiny.save("mamba2", tmp_path / "recurrent")
    with pytest.raises(ConfigError, match=r"adapter.rank = 4: .* family 'mamba2', .* set it to 0"):
        adapted(path)
