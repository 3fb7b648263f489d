"""One rank of the learner, whatever its number: device, threads, policy, optimizer and trainer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import torch

from sppo import compute, models
from sppo.config import RunConfig, cpu_threads
from sppo.learner.adapters import Adapters
from sppo.learner.groups import Groups
from sppo.learner.model import Logprobs, Policy, check_device
from sppo.learner.optim import Optimizer
from sppo.learner.orders import AnyPolicy, Rank
from sppo.learner.ranks import Ranks
from sppo.learner.rows import local, written_here
from sppo.learner.trainer import Trainer
from sppo.learner.writer import Writer

log = logging.getLogger(__name__)


def make(
    config: RunConfig, team: Ranks, device: str, groups: Groups,
    on_forward: Callable[[], None] = lambda: None,
) -> tuple[Rank, Trainer]:  # fmt: skip
    """A rank of `team` at the base model's weights; `on_forward` is called after each micro-batch.

    Raises ConfigError for a model that cannot be trained so.
    """
    if device == "cpu":
        torch.set_num_threads(max(1, cpu_threads(config.learner.threads) // team.size))
    log.info("%s, %d CPU threads, process %d", device, torch.get_num_threads(), os.getpid())
    if device == "cpu" and config.optimizer.offload:
        log.warning(
            "optimizer.offload = true changes nothing: on a CPU the moments are there anyway"
        )
    device = check_device(device, team.local) if team.size > 1 else device
    policy = _policy(config, team, device, on_forward)
    optimizer = Optimizer(config, policy.master, team)
    trainer = Trainer(config, policy, optimizer, team)
    writer = Writer(late=team.size == 1 and device == "cpu")
    if device != "cpu":
        writer.prepare(_written(policy, team) * (1 + optimizer.moments), pinned=True)
    optimizer.inner.register_step_pre_hook(lambda *_: writer.detach())
    rank = Rank(
        team=team, policy=policy, optimizer=optimizer, trainer=trainer, groups=groups, writer=writer
    )
    return rank, trainer


def _written(policy: AnyPolicy, team: Ranks) -> int:
    """Bytes of master weights that this rank writes to a checkpoint."""
    mine = (w for w in policy.master.values() if written_here(w, first=team.rank == 0))
    return sum(local(weight).nbytes for weight in mine)


def _policy(
    config: RunConfig, team: Ranks, device: str, on_forward: Callable[[], None]
) -> AnyPolicy:
    path = models.resolve(config.model)
    how: dict[str, Any] = {
        "device": device,
        "logprobs": Logprobs.of(config, device),
        "compute": compute.dtype(config),
        "recomputed": recomputed(config, device),
        "adapted": Adapters.of(config),
        "on_forward": on_forward,
    }
    log.info("computing in %s", config.compute)
    if team.size == 1:
        return Policy(path, **how)
    from sppo.learner.sharded import ShardedPolicy

    return ShardedPolicy(path, team, **how)


def recomputed(config: RunConfig, device: str) -> bool:
    """Whether layers are computed again in the backward pass, by `learner.recompute`."""
    asked = config.learner.recompute
    return device != "cpu" if asked == "auto" else asked == "on"
