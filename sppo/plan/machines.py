"""On how many machines the ranks of a learner stand, how many share a copy of the model, and what
crosses the network between the machines.

A machine has as many ranks as they were placed (`placed`), or LOCAL_WORLD_SIZE if the environment
says so, as it does where ranks are started by hand, else as many as it usually has GPUs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sppo import compute
from sppo.config import RunConfig
from sppo.plan.shape import Shape

GPUS = 8
MASTER = 4
"""Bytes of a float32."""

_PLACED: ContextVar[int] = ContextVar("ranks of a machine", default=0)


@contextmanager
def placed(ranks: int) -> Iterator[None]:
    """What is counted inside has so many ranks on each machine; 0: nobody has placed them."""
    token = _PLACED.set(ranks)
    try:
        yield
    finally:
        _PLACED.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Bytes in and out of each machine by the learner's ranks, as rings carry them."""

    machines: int
    nbytes: int
    of: str
    """What takes so many."""


def ranks_of_one(config: RunConfig) -> int:
    """Of the first machine."""
    given = os.environ.get("LOCAL_WORLD_SIZE", "")
    there = _PLACED.get() or int(given if given.isdecimal() else 0) or GPUS
    return min(config.learner.ranks, there)


def sharing(config: RunConfig) -> int:
    """Ranks that share one copy of the model."""
    return ranks_of_one(config) if config.learner.shard == "machine" else config.learner.ranks


def count(config: RunConfig) -> int:
    """Machines."""
    return -(-config.learner.ranks // ranks_of_one(config))


def between(config: RunConfig, found: Shape, *, gpu: bool) -> Between:
    """Weights come twice in a micro-batch (the root's once) and gradients go once; where each
    machine has a copy, sums of gradients go round once a step.
    """
    machines, low = count(config), compute.dtype(compute.decided(config, cuda=gpu)).itemsize
    trained = MASTER * sum(map(math.prod, found.trained.values()))
    if config.learner.shard == "machine":
        nbytes = 2 * trained * (machines - 1) // machines
        return Between(machines=machines, nbytes=nbytes, of="a step")
    ranks = config.learner.ranks if machines > 1 else 1
    nbytes = low * (2 * found.parameters - found.root.all) + trained
    return Between(machines=machines, nbytes=nbytes * (ranks - 1) // ranks, of="a micro-batch")
