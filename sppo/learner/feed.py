"""How a share goes through the model: in which micro-batches, and what the objective then sees.

    one pass      every unit of the objective's scope lies whole in a micro-batch: the loss is taken
                  of each, and goes backward at once
    two passes    elsewhere: the loss is taken of all log-probs together, and each micro-batch goes
                  through the model again with its part of dL/dlogprob

Shape suffixes: T completion tokens, N completions, K completions of one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppo.config import LearnerConfig
from sppo.families import Rows
from sppo.learner import batching
from sppo.learner.batching import MicroBatch, Part
from sppo.learner.objectives import ObjectiveBatch
from sppo.learner.objectives.base import Scope
from sppo.learner.ranks import Ranks
from sppo.learner.shares import Item, Sizes

Parts = list[Part]
"""What is in a micro-batch; nothing where only another rank has something left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The micro-batches of one share: as many of each kind on every rank."""

    with_gradient: list[Parts]
    """One pass, forward and backward."""
    without_gradient: list[Parts]
    """One pass, forward alone."""
    twice: list[Parts]
    """Two passes."""

    def all(self) -> list[Parts]:
        """In order."""
        return [*self.with_gradient, *self.without_gradient, *self.twice]


def schedule(
    items: Sequence[Item], scope: Scope, config: LearnerConfig, team: Ranks, rows: Rows, *,
    own_anchor: bool,
) -> Schedule:  # fmt: skip
    """For a share of which idle groups need no gradient if the policy is its own anchor. Groups
    whose scores are all equal lie apart from the others.
    """
    budget, share_prompt = config.micro_batch_tokens, rows != "completion"

    def kind(item: Item) -> int:
        if scope == "group" and batching.is_cut(item.fed, budget, share_prompt):
            return 3
        return 2 if own_anchor and item.idle else 0 if item.group.has_signal else 1

    kinds = [kind(item) for item in items]
    if scope == "batch":
        alone = team.size == 1 and len(_plan(items, range(len(items)), budget, rows)) <= 1
        kinds = [0 if alone else 3] * len(items)
    plans = [
        _plan(items, [i for i, k in enumerate(kinds) if k == wanted], budget, rows)
        for wanted in range(4)
    ]
    rounds = team.most([len(plan) for plan in plans])
    told, equal, idle, cut = (
        [*plan, *([[]] * (n - len(plan)))] for plan, n in zip(plans, rounds, strict=True)
    )
    return Schedule(with_gradient=[*told, *equal], without_gradient=idle, twice=cut)


def _plan(items: Sequence[Item], chosen: Sequence[int], budget: int, rows: Rows) -> list[Parts]:
    plan = batching.plan([items[i].fed for i in chosen], budget, rows)
    return [[part._replace(group=chosen[part.group]) for part in parts] for parts in plan]


def lay_out(
    items: Sequence[Item], parts: Parts, rows: Rows, device: str
) -> tuple[MicroBatch, list[Item]]:
    """A micro-batch, and its items."""
    fed = [item.fed for item in items]
    batch = batching.collate(fed, parts, rows=rows, device=device)
    return batch, [items[part.group].part(part.start, part.stop) for part in parts]


class ByCompletion:
    """Values of tokens, such as log-probs under weights that stand still, by completion."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Tensor] = {}

    def __contains__(self, item: Item) -> bool:
        return (item.group.uid, item.first) in self._known

    def add(self, items: Iterable[Item], values_T: Tensor) -> None:
        """Of the fed completions of these items, in order."""
        names = [name for item in items for name in _names(item)]
        lengths = [len(c.token_ids) for item in items for c in item.fed.completions]
        self._known.update(zip(names, torch.split(values_T, lengths), strict=True))

    def of(self, items: Iterable[Item]) -> Tensor:
        """[T] of these items."""
        return torch.cat([self._known[name] for item in items for name in _names(item)])


def _names(item: Item) -> list[tuple[str, int]]:
    return [(item.group.uid, item.first + k) for k in range(len(item.keep_K))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Log-probs in nats and entropy [T] of the fed completions of some items."""

    logprob_T: Tensor
    entropy_T: Tensor
    anchor_T: Tensor | None
    reference_T: Tensor | None


def behavior(items: Sequence[Item], device: torch.device) -> Tensor:
    """log μ [T] of the fed completions, as the engine reported it."""
    reported = [c.behavior_logprobs for item in items for c in item.fed.completions]
    return torch.from_numpy(np.concatenate(reported)).to(device)


def objective_batch(
    items: Sequence[Item], tokens: Tokens, sizes: Sizes, *, own_anchor: bool, kernels: Any
) -> ObjectiveBatch:
    """What an objective sees of whole items."""
    device = tokens.logprob_T.device
    groups = [item.fed for item in items]
    completions = [c for group in groups for c in group.completions]
    target = [t for item in items for t in item.target_K or ()]
    rewards = [g.rewards for g in groups if g.rewards is not None] or None
    return ObjectiveBatch(
        logprob_T=tokens.logprob_T,
        entropy_T=tokens.entropy_T,
        anchor_T=tokens.anchor_T,
        behavior_T=behavior(items, device),
        reference_T=tokens.reference_T,
        cu_seqlens=_offsets([len(c.token_ids) for c in completions], device),
        group_offsets=_offsets([len(group.completions) for group in groups], device),
        keep_N=torch.tensor([keep for item in items for keep in item.keep_K], device=device),
        target_N=torch.tensor(target, device=device) if items[0].target_K is not None else None,
        rewards_N=None
        if rewards is None
        else torch.tensor(np.concatenate(rewards), dtype=torch.float32, device=device),
        preferences=None
        if rewards is not None
        else tuple(torch.tensor(group.preferences, device=device) for group in groups),
        finished_N=torch.tensor([c.finish_reason != "length" for c in completions], device=device),
        completions=sizes.completions,
        tokens=sizes.tokens,
        groups=sizes.groups,
        own_anchor=own_anchor,
        kernels=kernels,
        names=[name for item in items for name in _names(item)],
    )


def _offsets(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *np.cumsum(lengths).tolist()], device=device)
