"""The whole plan of a run: figures for a machine, lines for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from sppo import compute
from sppo.config import RunConfig
from sppo.plan import fit, gpus, learner, machines, roles
from sppo.plan.gpus import Gpu
from sppo.plan.learner import Rank
from sppo.plan.machines import Between
from sppo.plan.roles import Broker, Generator, Sync


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Of every role and device."""

    model: str
    parameters: int
    compute: str
    gpu: Gpu | None
    """None: everything is on this machine's CPU."""
    memory: int
    """Of this machine, where everything is on its CPU; else 0."""
    ranks: int
    sharing: int
    """Ranks that share one copy of the model."""
    rank: Rank
    between: Between
    generators: int
    devices: int
    """Of each generator."""
    generator: Generator
    broker: Broker
    host: Mapping[str, int]
    sync: Sync
    sampling: int
    """Bytes of the GPU in the engines' turn (`launch.take_turns`), or 0."""
    refusals: tuple[str, ...]
    """What does not fit, each with setting, value and mend."""

    def figures(self) -> dict[str, Any]:
        """As plain values; bytes and seconds."""
        return asdict(self) | {
            "peak": {"rank": self.rank.peak, "generator": self.generator.peak},
            "fits": not self.refusals,
        }


def made(config: RunConfig, gpu: str, bandwidth: float) -> Plan:
    """For GPUs of this kind (`gpus.named`), or, without one, for what `up` would take here: this
    machine's GPUs, its CPU, or an H100 where GPUs are asked for and none is here. `bandwidth` in
    bytes a second. Raises ConfigError for a model or a GPU that is not known.
    """
    on = gpus.named(gpu) if gpu else _here(config)
    if on is not None:
        on = replace(on, taken=roles.beside(config, on))
    cuda = on is not None
    memory = 0 if cuda else int(psutil.virtual_memory().total)
    found = learner.model(config)[1]
    rank, engine = learner.rank(config, gpu=cuda), roles.generator(config, on)
    host = roles.host(config, gpu=cuda)
    refusals = [
        fit.learner_on(config, on) if on else "",
        fit.generator_on(config, on),
        fit.turns_on(config, on) if on else "",
        fit.sync_in_time(config, gpu=cuda, bandwidth=bandwidth),
        "" if on else _all_here(config, rank, engine, host, memory),
    ]
    return Plan(
        model=config.model.name, parameters=found.parameters,
        compute=compute.resolve(config, cuda=cuda), gpu=on, memory=memory,
        ranks=config.learner.ranks, sharing=machines.sharing(config), rank=rank,
        between=machines.between(config, found, gpu=cuda), generators=config.generator.replicas,
        devices=config.generator.devices, generator=engine, broker=roles.broker(config),
        sampling=roles.sampling(config, on) if on else 0,
        host=host, sync=roles.sync(config, gpu=cuda, bandwidth=bandwidth),
        refusals=tuple(filter(None, refusals)),
    )  # fmt: skip


def lines(plan: Plan) -> list[str]:
    """The table."""
    gpu, rank, engine = plan.gpu, plan.rank, plan.generator
    where = (
        f"GPUs of {gpus.size(gpu.nbytes)} ({gpu.name}), {gpus.size(gpu.usable)} of each to fill"
        if gpu
        else f"this machine's CPU, {gpus.size(plan.memory)} of memory"
    )
    again = "computed again" if rank.recomputed else "kept"
    moment = max(rank.moments, key=rank.moments.__getitem__)
    sampled = f"{engine.cached_tokens:,} tokens; {engine.wanted_tokens:,} are sampled at a time"
    speed = f"{plan.sync.seconds:.1f} s at {plan.sync.nbytes / plan.sync.seconds / 1e9:g} GB/s"
    return [
        f"{plan.model}, {plan.parameters / 1e9:.2f} billion parameters, {plan.compute}, on {where}",
        f"learner, rank 0 of {plan.ranks}{_shards(plan)}: micro-batches of {rank.tokens:,} tokens, "
        f"layers {again}",
        *(_row(name, nbytes) for name, nbytes in rank.stands.items() if nbytes),
        _row(moment, rank.moments[moment], f"activations kept: {gpus.size(rank.kept)}"),
        _row("peak", rank.peak),
        *([_row("generators, on the same GPU", gpu.taken)] if gpu and gpu.taken else []),
        *([_row("in the engines' turn", plan.sampling)] if plan.sampling else []),
        *_between(plan.between),
        f"generators: {plan.generators} on {plan.devices} device(s) each",
        _row("weights", engine.weights),
        _row("key-value cache", engine.cache, f"{sampled} at most"),
        "host memory of the learner's machine",
        *(_row(name, nbytes) for name, nbytes in plan.host.items()),
        "broker",
        _row("groups in flight, at most", plan.broker.in_flight,
             f"held back from {gpus.size(plan.broker.limit)} on"),
        _row("traffic of a step, at most", plan.broker.step, "in and out"),
        "weight sync",
        _row("weights", plan.sync.nbytes, speed),
    ]  # fmt: skip


def _here(config: RunConfig) -> Gpu | None:
    """What the learner would take."""
    found = gpus.here()
    if not compute.on_gpu(config, gpus=found is not None):
        return None
    return found or gpus.named(gpus.ASSUMED)


def _all_here(
    config: RunConfig, rank: Rank, engine: Generator, host: Mapping[str, int], memory: int
) -> str:
    """Why all roles together do not fit on this machine, and the mend; empty if they do."""
    wanted = rank.peak + sum(host.values()) + config.generator.replicas * engine.peak
    if wanted <= memory:
        return ""
    return (
        f"model.name = {config.model.name!r}: learner, generators and a checkpoint's copy take "
        f"{gpus.size(wanted)}, this machine has {gpus.size(memory)}; choose a smaller model, or "
        "plan for GPUs with --gpu"
    )


def _shards(plan: Plan) -> str:
    return f" ({plan.sharing} share a copy of the model)" if plan.sharing < plan.ranks else ""


def _between(found: Between) -> list[str]:
    if found.machines == 1:
        return []
    note = f"in and out of each of {found.machines}, in {found.of}"
    return [_row("traffic between machines", found.nbytes, note)]


def _row(name: str, nbytes: int, note: str = "") -> str:
    return f"  {name:36} {gpus.size(nbytes):>10}   {note}".rstrip()
