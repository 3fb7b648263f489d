"""A real policy and its optimizer on fake tensors, under torch's own tracker of memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from sppo import compute, families
from sppo.config import ModelConfig, RunConfig
from sppo.learner import mesh, model, ranks, sharded
from sppo.learner.adapters import Adapters
from sppo.learner.batching import MicroBatch
from sppo.learner.model import Logprobs, Policy
from sppo.learner.optim import Optimizer
from sppo.learner.rank import recomputed
from sppo.plan import known, machines, shape, trace
from sppo.plan.micro_batch import Layout

HOW = Logprobs(temperature=1.0, kernels="torch")


def shrunk(name: str, layers: int, folder: Path) -> str:
    """A folder with the model's config.json, of so many layers. No weights."""
    config = shape.with_layers(known.config_of(ModelConfig(name=name)), layers)
    config.save_pretrained(str(folder))
    return str(folder)


def peak(config: RunConfig, monkeypatch: pytest.MonkeyPatch, *, gpu: bool) -> int:
    """Bytes of one rank at most, in a second micro-batch, gradients and moments there. What fake
    tensors do not show, the inside of `linear_logprob`, is left out.
    """
    path, dtype = config.model.name, compute.dtype(compute.decided(config, cuda=gpu))
    family = families.read(path)
    batch = Layout.of(config, shares=family.shares).largest()
    if gpu:  # attention is fused, and its stand-in takes plain rows
        batch = dataclasses.replace(batch, rows="completion")
        fused = dataclasses.replace(family, attention=trace._stand_in())
        monkeypatch.setattr(families, "read", lambda *_: fused)
    how: dict[str, Any] = {
        "device": "cpu", "logprobs": HOW, "compute": dtype,
        "recomputed": recomputed(config, "cuda" if gpu else "cpu"),
        "adapted": Adapters.of(config),
    }  # fmt: skip
    with (
        _team(config.learner.ranks, machines.sharing(config)) as team,
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        if team.size > 1:
            return _sharded(config, team, batch, how, monkeypatch)
        monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", _made)
        monkeypatch.setattr(model, "stored_dtype", lambda _: torch.bfloat16)
        policy = Policy(path, **how)
        optimizer = _optimizer(config, policy)
        tracker = MemTracker()
        masters = list(policy.master.values())
        gradients = [p.grad for p in masters if p.grad is not None]
        tracker.track_external(policy.module, optimizer.inner, *masters, *gradients)
        return _step(tracker, policy, optimizer, batch)


def _sharded(
    config: RunConfig, team: Any, batch: MicroBatch, how: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> int:  # fmt: skip
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker

    monkeypatch.setattr(sharded, "stored_dtype", lambda _: torch.bfloat16)
    monkeypatch.setattr(sharded, "_read", lambda *_: None)
    policy = sharded.ShardedPolicy(config.model.name, team, **how)
    optimizer = _optimizer(config, policy)
    return _step(FSDPMemTracker(policy._scorer, optimizer.inner), policy, optimizer, batch)


def _optimizer(config: RunConfig, policy: Any) -> Optimizer:
    optimizer = Optimizer(config, policy.master)
    for parameter in policy.master.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.inner.step()
    return optimizer


def _step(tracker: Any, policy: Any, optimizer: Optimizer, batch: MicroBatch) -> int:
    with tracker:
        logprob_T, entropy_T = policy.logprobs(batch, entropy=True)
        (logprob_T.sum() + entropy_T.sum()).backward()
        optimizer.inner.step()
    found = tracker.get_tracker_snapshot("peak")
    return int(next(iter(found.values()))["Total"])


def _made(path: str, *, dtype: torch.dtype, attn_implementation: str, **_: Any) -> Any:
    from transformers import AutoModelForCausalLM

    made = AutoModelForCausalLM.from_config(
        families.read_config(path), dtype=dtype, attn_implementation=attn_implementation
    )
    made.to = lambda _: made  # it is there; fake weights cannot be swapped
    return made


@contextmanager
def _team(size: int, sharing: int) -> Iterator[Any]:
    """Rank 0 of so many, the others pretended."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if size == 1:
        yield ranks.Solo()
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        team: Any = ranks.Solo()
        team.size, team.mesh = size, mesh.of("cpu", size, sharing, ranks.PATIENCE)
        yield team
    finally:
        dist.destroy_process_group()
