"""What one rank of the learner takes on its device.

    stands       float32 masters, computing weights, gradients, moments, snapshots; with adapters
                 these are the adapters' alone, and the model stands in the computing dtype
    moments      on top of it, one after the other: a layer's backward, the log-probs', the end of
                 the backward pass, the optimizer; the largest counts

Each rank of those that share a copy of the model (`sppo.plan.machines`) holds its rows of what
stands. Beside that it has whole weights in the
computing dtype: the root's, one layer's in use and one's on its way, and gradients of a layer,
which travel in float32 (`sppo.learner.sharded`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from sppo import compute, families
from sppo.config import ModelConfig, RunConfig
from sppo.kernels.linear.cpu import CHUNK_LOGITS, MAX_CHUNK, MIN_CHUNK
from sppo.kernels.tiles import CHUNK_BYTES
from sppo.learner import objectives
from sppo.learner.adapters import Adapters
from sppo.learner.objectives import anchors
from sppo.learner.optim import KINDS
from sppo.learner.rank import recomputed
from sppo.plan import known, machines, shape, trace
from sppo.plan.machines import MASTER
from sppo.plan.micro_batch import Layout
from sppo.plan.shape import Shape
from sppo.plan.trace import Activations
from sppo.weights.nccl import BUFFER_BYTES, BUFFERS
from sppo.weights.shared import BUCKET_BYTES, SLOTS

FEW = 2
"""Layers that are run at least, and some of each kind; the rest follows from a few more."""
ROUNDED = 1e-5
"""Of what these few more add: numbers that a model keeps for each layer and not for tokens."""
TEMPORARIES = 4
"""Chunks of logits beside the one in memory, where torch computes log-probs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Bytes of rank 0, which has the most."""

    stands: Mapping[str, int]
    """At all times of a step."""
    moments: Mapping[str, int]
    """On top of it, one after the other."""
    kept: int
    """Of the moments: activations from forward to backward."""
    layout: Layout
    tokens: int
    """Of the largest micro-batch, padding included."""
    recomputed: bool

    @property
    def peak(self) -> int:
        """The most at any time."""
        return sum(self.stands.values()) + max(self.moments.values())


def model(config: RunConfig) -> tuple[Any, Shape]:
    """The model's configuration, and what it comes to. Raises ConfigError."""
    return _model(config.model, Adapters.of(config))


@lru_cache(maxsize=8)
def _model(given: ModelConfig, adapted: Adapters | None) -> tuple[Any, Shape]:
    config = known.config_of(given)
    return config, shape.of(config, given.name, adapted)


def rank(config: RunConfig, *, gpu: bool) -> Rank:
    """Of a run's learner, on GPUs or on a CPU. Raises ConfigError for a model that nobody knows."""
    config = compute.decided(config, cuda=gpu)
    of, found = model(config)
    layout = Layout.of(config, shares=found.family.shares)
    again = recomputed(config, "cuda" if gpu else "cpu")
    # Elsewhere matrices of scores count, as on a CPU.
    fused = gpu and families.by_name(of) and found.family.attention != "eager"
    traced = _traced(
        config.model, Adapters.of(config), layout.plain if fused else layout,
        compute.dtype(config), again, fused,
    )  # fmt: skip
    return Rank(
        stands=_stands(config, found, gpu=gpu),
        moments=_moments(config, found, traced, layout.tokens, gpu=gpu),
        kept=traced.kept, layout=layout, tokens=layout.tokens, recomputed=again,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _traced(
    given: ModelConfig, adapted: Adapters | None, layout: Layout, dtype: torch.dtype, again: bool,
    gpu: bool,
) -> Activations:  # fmt: skip
    config, found = _model(given, adapted)
    batch = layout.largest()

    def counted(layers: int) -> Activations:
        cut = shape.with_layers(config, layers)
        return trace.activations(
            cut, batch, compute=dtype, recomputed=again, gpu=gpu, adapted=adapted
        )

    few_layers, more_layers = _few(found.kinds)
    cuts = shape.with_layers(config, few_layers) is not config
    if cuts and few_layers + more_layers < found.layers:
        few, more = counted(few_layers), counted(more_layers)
        each = dict(zip(found.kinds, more.layers, strict=False))
        # Further layers add what they keep, and no more, to the moment that counts.
        added = sum(each[kind] for kind in found.kinds[few_layers:more_layers])
        grown = more.peak - few.peak, more.kept - few.kept
        if max(abs(n - added) for n in grown) <= ROUNDED * added:
            left = sum(each[kind] for kind in found.kinds[few_layers:])
            return Activations(kept=few.kept + left, peak=few.peak + left)
    return counted(found.layers)


def _few(kinds: Sequence[int]) -> tuple[int, int]:
    """How many layers tell of all, and how many more tell whether they do: some of each kind, the
    last one of the kind of the last of all.
    """
    every = max(map(kinds.index, kinds))
    ends = (n + 1 for n, kind in enumerate(kinds) if n >= every and kind == kinds[-1])
    enough = [n for n in ends if n >= FEW][:2]
    return (enough[0], enough[1]) if len(enough) == 2 else (len(kinds), len(kinds))


def snapshots(config: RunConfig) -> int:
    """Copies of the computing weights that a run keeps."""
    anchor = anchors.make(config.objective.anchor, config.objective.iteration_steps)
    return anchor.keeps + ("reference" in objectives.make(config.objective).needs)


def standing(config: RunConfig, *, gpu: bool) -> dict[str, int]:
    """What rank 0 holds at all times, without running a step to count the rest: `Rank.stands`."""
    config = compute.decided(config, cuda=gpu)
    return _stands(config, model(config)[1], gpu=gpu)


def stored(config: RunConfig) -> int:
    """Bytes of a checkpoint: float32 masters of what is trained, and the optimizer's memory."""
    trained = sum(map(math.prod, model(config)[1].trained.values()))
    return MASTER * trained * (1 + len(KINDS[config.optimizer.name].moments))


def moments(config: RunConfig, found: Shape) -> int:
    """Bytes of the optimizer's memory of rank 0."""
    own = shape.rows(found.trained, machines.sharing(config))
    return MASTER * own * len(KINDS[config.optimizer.name].moments)


def _stands(config: RunConfig, found: Shape, *, gpu: bool) -> dict[str, int]:
    learner, low = config.learner, compute.dtype(config).itemsize
    ranks = machines.sharing(config)
    own = shape.rows(found.trained, ranks)
    there = {
        "frozen weights": low * shape.rows(found.weights, ranks) if found.adapted else 0,
        "master weights": MASTER * own,
        "computing weights": low * own if learner.ranks == 1 and low < MASTER else 0,
        "gradients": MASTER * own,
    }
    if not gpu or not config.optimizer.offload:
        there["moments"] = moments(config, found)
    if not gpu or learner.snapshot == "device":
        there["snapshots"] = low * own * snapshots(config)
    if not gpu:
        there["staged weights"] = low * found.parameters
    if config.weights.transport == "shared":
        there["memory shared with engines"] = SLOTS * BUCKET_BYTES
    return there


def _moments(
    config: RunConfig, found: Shape, traced: Activations, tokens: int, *, gpu: bool
) -> dict[str, int]:
    low, ranks, layer, root = (
        compute.dtype(config).itemsize, machines.sharing(config), found.layer, found.root,
    )  # fmt: skip
    head = traced.kept + _logprobs(config, found, tokens, gpu=gpu)
    there = {"a layer's backward pass": traced.peak, "log-probs": head}
    if config.learner.ranks > 1:
        back = (low + MASTER) * layer.trained + MASTER * layer.trained // ranks
        there["a layer's backward pass"] += (
            low * (root.all + 2 * layer.all + found.head.trained) + back
        )
        there["log-probs"] += low * (root.all + 2 * layer.all)
        there["the end of the backward pass"] = (
            low * root.all + MASTER * root.trained + MASTER * root.trained // ranks
        )
    if gpu:
        there["the optimizer"] = _optimizer(config, found)
        if config.weights.transport == "nccl":
            there["a transfer of weights"] = BUFFERS * BUFFER_BYTES
    return there


def _optimizer(config: RunConfig, found: Shape) -> int:
    """Copies that a step on a GPU makes: all weights' at once, or one weight's after the other."""
    optimizer, ranks = config.optimizer, machines.sharing(config)
    own = shape.rows(found.trained, ranks)
    fetched = 0
    if optimizer.offload:
        own = max(shape.rows({name: part}, ranks) for name, part in found.trained.items())
        fetched = len(KINDS[optimizer.name].moments)
    roots = 1 + (optimizer.weight_decay > 0) if optimizer.name == "rmsprop" else 0
    return MASTER * own * (fetched + roots)


def _logprobs(config: RunConfig, found: Shape, tokens: int, *, gpu: bool) -> int:
    """The backward pass of `linear_logprob` beside what stands: its copies of hidden states, a
    chunk of logits, the head's gradient.
    """
    low = compute.dtype(config).itemsize
    states = tokens * found.hidden
    weight = 0 if found.adapted else low * found.vocabulary * found.hidden
    if gpu and config.learner.kernels != "torch":
        return states * (2 * low + 2 * MASTER) + CHUNK_BYTES + weight
    columns = min(max(CHUNK_LOGITS // max(tokens, 1), MIN_CHUNK), MAX_CHUNK, found.vocabulary)
    chunks = (1 + TEMPORARIES) * MASTER * tokens * columns
    return states * (3 * low + 2 * MASTER) + chunks + weight
