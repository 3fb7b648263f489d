"""What the roles beside the learner's ranks take: generators, the broker, host memory, a weight
sync.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sppo import compute
from sppo.config import RunConfig
from sppo.learner.optim import KINDS
from sppo.plan import learner, machines
from sppo.plan.gpus import CONTEXT, GIB, Gpu

TOKEN = 8
"""Bytes of a token and its log-prob in a group's frame."""
ENGINE = 2 * GIB
"""What an engine's own activations and graphs take of its share of a GPU; a guess, as vLLM measures
it when it starts.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Bytes of one engine on each of its devices."""

    weights: int
    cache: int
    """Key-value cache; what is left of the engine's share on a GPU."""
    cached_tokens: int
    """That the cache holds, over all devices of the engine."""
    longest: int
    """Tokens of a prompt with its completion."""
    wanted_tokens: int
    """Of all that it samples at a time, at full length."""

    @property
    def peak(self) -> int:
        """Weights and cache."""
        return self.weights + self.cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Bytes in the server, and through it."""

    tickets: int
    """Out at once, at most: of the batch in use, filled up (`learner.refill`), and those ahead."""
    group: int
    """At most, of one group."""
    in_flight: int
    """At most, of all groups whose tickets are out."""
    limit: int
    """`broker.max_bytes`."""
    step: int
    """At most, in and out again, in an optimizer step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """One publication of weights."""

    nbytes: int
    seconds: float
    """At the given bandwidth."""
    deadline: float
    """`weights.phase_timeout_s`."""


def generator(config: RunConfig, gpu: Gpu | None) -> Generator:
    """One engine, on GPUs of this kind or on a CPU."""
    config = compute.decided(config, cuda=gpu is not None)
    found = learner.model(config)[1]
    low, sampling, own = compute.dtype(config).itemsize, config.sampling, config.generator
    parts, stages = own.tensor_parallel, own.vllm.get("pipeline_parallel_size", 1)
    weights = low * found.parameters // (parts * stages)
    each = low * found.cached // (min(parts, found.kv_heads) * stages)
    """Bytes of a token on one device."""
    cache = int(own.kv_cache_gib * GIB)
    if gpu is not None and not config.launch.share_gpu:
        cache = max(0, int(own.gpu_memory_utilization * gpu.nbytes) - weights - ENGINE)
    prompt = config.task.max_prompt_tokens
    return Generator(
        weights=weights, cache=cache, cached_tokens=own.copies * (cache // each) if each else 0,
        longest=prompt + sampling.max_tokens,
        wanted_tokens=own.max_groups * (prompt + sampling.completions * sampling.max_tokens),
    )  # fmt: skip


def beside(config: RunConfig, gpu: Gpu) -> int:
    """Bytes of the learner's GPU that generators have while it trains."""
    if not config.launch.share_gpu:
        return 0
    engine = generator(config, gpu)
    own = 0 if config.launch.take_turns else engine.peak
    if config.generator.engine == "transformers":
        own += engine.weights  # all that arrives is there before it is copied
    return config.generator.replicas * (own + ENGINE + CONTEXT)


def sampling(config: RunConfig, gpu: Gpu) -> int:
    """Bytes of a GPU on which turns are taken while it is the engines': theirs, and what the
    learner keeps. 0 where none are taken.
    """
    if not config.launch.take_turns:
        return 0
    engines = config.generator.replicas * generator(config, gpu).peak
    return engines + sum(learner.standing(config, gpu=True).values())


def broker(config: RunConfig) -> Broker:
    """Groups at their longest."""
    sampling, run = config.sampling, config.learner
    group = TOKEN * sampling.completions * sampling.max_tokens + 4 * config.task.max_prompt_tokens
    tickets = run.lookahead_steps * run.groups_per_step + run.most_groups
    per_step = run.most_groups // run.mini_batches
    return Broker(
        tickets=tickets, group=group, in_flight=tickets * group,
        limit=config.broker.max_bytes, step=2 * per_step * group,
    )  # fmt: skip


def sync(config: RunConfig, *, gpu: bool, bandwidth: float) -> Sync:
    """At so many bytes a second."""
    config = compute.decided(config, cuda=gpu)
    found = learner.model(config)[1]
    nbytes = compute.dtype(config).itemsize * found.parameters
    return Sync(nbytes=nbytes, seconds=nbytes / bandwidth, deadline=config.weights.phase_timeout_s)


def host(config: RunConfig, *, gpu: bool) -> dict[str, int]:
    """Host memory of the learner's machine, beside that of the processes themselves."""
    config = compute.decided(config, cuda=gpu)
    found = learner.model(config)[1]
    low = compute.dtype(config).itemsize
    trained = sum(map(math.prod, found.trained.values()))
    count, moments = learner.snapshots(config), len(KINDS[config.optimizer.name].moments)
    image = machines.MASTER * (1 + moments) + low * count
    copies = machines.count(config) if config.learner.shard == "all" else 1
    late = not gpu and config.learner.ranks == 1  # of what the next step finds unwritten
    copied = "copy for checkpoints" + (", at most" if late else "")
    there = {copied: image * trained // copies}
    if gpu:
        there["staged weights"] = low * found.parameters
        if config.launch.take_turns:
            there["weights of engines that sleep"] = (
                low * found.parameters * config.generator.replicas
            )
        if config.optimizer.offload:
            there["moments"] = machines.ranks_of_one(config) * learner.moments(config, found)
        if config.learner.snapshot == "host" and count:
            there["snapshots"] = low * trained * count
    return there
