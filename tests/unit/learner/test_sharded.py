"""A policy in shards is the policy. Here there is one shard; tests/integration/test_ranks.py has
several.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sppo.config import AdapterConfig
from sppo.errors import ConfigError
from sppo.families import Rows, read, read_config
from sppo.learner import batching, rows, stored
from sppo.learner.adapters import Adapters
from sppo.learner.model import Logprobs, Policy
from sppo.learner.ranks import Team
from sppo.learner.sharded import ShardedPolicy, _read
from sppo.learner.skeleton import skeleton, stored_buffers
from tests import checkpoints, families, makers

VOCABULARY = 61


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return makers.tiny_model(tmp_path_factory.mktemp("model"), vocabulary=VOCABULARY)


@pytest.fixture(scope="module")
def sharded(path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardedPolicy]:
    team = Team(0, 1, tmp_path_factory.mktemp("team") / "store", "cpu")
    how = Logprobs(temperature=0.7)
    try:
        yield ShardedPolicy(path, team, device="cpu", logprobs=how, compute=torch.float32)
    finally:
        torch.distributed.destroy_process_group()


def logprobs(policy: Policy | ShardedPolicy, rows: Rows = "packed") -> torch.Tensor:
    groups = makers.random_groups(np.random.default_rng(0), 3, vocabulary=VOCABULARY)
    (parts,) = batching.plan(groups, 10**6, rows)
    batch = batching.collate(groups, parts, rows=rows, device="cpu")
    with torch.no_grad():
        return policy.logprobs(batch)[0]


def test_log_probs_and_weights_are_those_of_the_whole_model(
    sharded: ShardedPolicy, path: str
) -> None:
    whole = Policy(path, device="cpu", logprobs=Logprobs(temperature=0.7), compute=torch.float32)
    assert torch.allclose(logprobs(sharded), logprobs(whole), atol=1e-6)
    expected = dict(whole.weights())
    for found in (dict(sharded.weights()), dict(sharded.masters()), dict(sharded.kept())):
        assert found.keys() == expected.keys()
        assert all(torch.equal(rows.whole(w), expected[name]) for name, w in found.items())
    assert sharded.vocabulary == whole.vocabulary == VOCABULARY


def test_a_snapshot_stands_in_for_the_weights_and_they_come_back(
    sharded: ShardedPolicy, tmp_path: Path
) -> None:
    before = logprobs(sharded)
    zeros = {name: torch.zeros_like(w) for name, w in sharded.masters()}
    folder = checkpoints.save(tmp_path, 1, model=(), snapshots={"anchor": zeros.items()})
    with stored.opened(folder, "anchor") as there:
        sharded.keep("anchor", device="cpu", there=there)
    sharded.keep("probe", device="cpu")
    with sharded.using("anchor"):
        assert torch.allclose(logprobs(sharded), torch.full_like(before, -np.log(VOCABULARY)))
    with sharded.using("probe"):
        assert torch.equal(logprobs(sharded), before)
    assert torch.equal(logprobs(sharded), before)
    assert not any(w.any() for _, w in sharded.weights("anchor"))
    sharded.drop("anchor")
    sharded.drop("probe")


def test_what_is_loaded_is_what_was_written(sharded: ShardedPolicy, tmp_path: Path) -> None:
    before = {name: rows.whole(w).clone() for name, w in sharded.masters()}
    changed = {name: w + 1 for name, w in before.items()}
    for step, values in enumerate((changed, before)):
        with stored.opened(checkpoints.save(tmp_path, step, model=values.items()), "model") as file:
            sharded.load(file)
        assert all(torch.equal(rows.whole(w), values[name]) for name, w in sharded.masters())


def test_a_model_whose_files_lack_a_weight_is_refused(
    sharded: ShardedPolicy, tmp_path: Path
) -> None:
    name, weight = next(sharded.masters())
    save_file({name: rows.whole(weight)}, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match=r"holds no .*; .*needs learner.ranks = 1"):
        _read([tmp_path / "part.safetensors"], sharded.master, {})


def test_an_export_is_read_as_any_other_model(sharded: ShardedPolicy, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    sharded.export(tmp_path / "export", torch.float32)
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    written = {name: rows.whole(w) for name, w in sharded.masters()}
    assert all(torch.equal(p, written[name]) for name, p in read.named_parameters())


def test_layers_that_are_computed_again_give_the_gradients_of_the_whole_model(
    sharded: ShardedPolicy, path: str
) -> None:
    how = Logprobs(temperature=0.7)
    whole = Policy(path, device="cpu", logprobs=how, compute=torch.float32)
    again = ShardedPolicy(
        path, sharded._team, device="cpu", logprobs=how, compute=torch.float32, recomputed=True
    )
    groups = makers.random_groups(np.random.default_rng(0), 3, vocabulary=VOCABULARY)
    (parts,) = batching.plan(groups, 10**6, "packed")
    for policy in (whole, again):
        batch = batching.collate(groups, parts, rows="packed", device="cpu")
        (policy.logprobs(batch)[0] ** 2).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in whole.master.items():
        assert parameter.grad is not None
        assert torch.allclose(again.master[name].grad.full_tensor(), parameter.grad, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma4_text", "apertus", "openai-gpt"])
def test_buffers_are_those_of_the_models_files_in_the_computing_format(
    sharded: ShardedPolicy, tmp_path: Path, name: str
) -> None:
    """Factors of layers and of activations, and masks that no file holds."""
    path = families.save(name, tmp_path / "model")
    (file,) = Path(path).glob("*.safetensors")
    tensors, how = load_file(file), {"device": "cpu", "compute": torch.bfloat16}
    for part in stored_buffers(skeleton(read_config(path), read(path))):
        tensors[part] *= 0.5
    save_file(tensors, file, metadata={"format": "pt"})
    whole = Policy(path, logprobs=Logprobs(temperature=0.7), **how)
    parts = ShardedPolicy(path, sharded._team, logprobs=Logprobs(temperature=0.7), **how)
    for policy in (whole, parts):
        policy.export(tmp_path / "out" / type(policy).__name__, torch.bfloat16)
    found = [load_file(out) for out in (tmp_path / "out").glob("*/model.safetensors")]
    expected = dict(whole.module.named_buffers())
    for part, buffer in parts._module.named_buffers():
        assert torch.equal(buffer, expected[part]), part
        assert buffer.dtype == expected[part].dtype
    for part in stored_buffers(whole.module):
        low = tensors[part].bfloat16()
        assert all(torch.equal(low, exported[part].bfloat16()) for exported in found), part
    assert torch.equal(*(logprobs(policy, rows="completion") for policy in (parts, whole)))


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_adapters_in_shards_are_those_of_the_whole_model(
    sharded: ShardedPolicy, path: str, tmp_path: Path, compute: torch.dtype
) -> None:
    adapted = Adapters(settings=AdapterConfig(rank=4), seed=3)
    how: dict[str, Any] = {"device": "cpu", "compute": compute, "adapted": adapted}
    how["logprobs"] = Logprobs(temperature=0.7)
    whole = Policy(path, **how)
    parts = ShardedPolicy(path, sharded._team, **how)
    assert list(whole.master) == list(parts.master)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in whole.master.items():
            p += 0.1 * torch.randn_like(p)
            parts.master[name].to_local().copy_(p)
    for policy in (whole, parts):
        policy.refresh()
        policy.keep("anchor", device="cpu")
    groups = makers.random_groups(np.random.default_rng(0), 3, vocabulary=VOCABULARY)
    (plan,) = batching.plan(groups, 10**6, "packed")
    for policy in (whole, parts):
        batch = batching.collate(groups, plan, rows="packed", device="cpu")
        (policy.logprobs(batch)[0] ** 2).sum().backward()  # type: ignore[no-untyped-call]
    for name, p in whole.master.items():
        assert torch.allclose(parts.master[name].grad.full_tensor(), p.grad, rtol=1e-4, atol=1e-5)
    for found, expected in (
        (parts.weights(), whole.weights()),
        (parts.weights("anchor"), whole.weights("anchor")),
        (parts.kept("anchor"), whole.kept("anchor")),
    ):
        same, those = dict(found), dict(expected)
        assert same.keys() == those.keys()
        assert all(torch.equal(rows.whole(same[name]), w) for name, w in those.items())
    for name, policy in (("whole", whole), ("parts", parts)):
        policy.export(tmp_path / name, torch.bfloat16)
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        mine, its = (load_file(tmp_path / name / file) for name in ("parts", "whole"))
        assert mine.keys() == its.keys()
        assert all(torch.equal(mine[name], w) for name, w in its.items())
