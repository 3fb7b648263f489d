"""What of a batch is trained in which step, and by which rank.

    groups ── select ──▶ items ── mini_batches ──▶ steps ── deal ──▶ shares ── pack ┈▶ unpack

Rank 0 does all of it; another rank unpacks its shares of groups that it has fetched itself.

Shape suffixes: N completions of several groups laid end to end, G groups, K completions of one
group.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from sppo.errors import SppoError
from sppo.learner import batching
from sppo.learner.objectives import Objective, Scored
from sppo.learner.orders import Packed
from sppo.types import Completion, Group

PROBED_SHARE = 8
"""One in so many of the groups that need not go through the model does, for its metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One group, or a part of it, on its way through a batch."""

    group: Group
    """As it was scored."""
    fed: Group
    """With the completions that go through the model."""
    first: int = 0
    """Position of the first of these among all of the group that go through the model."""
    fed_K: tuple[bool, ...]
    """[K of `group`] which these are."""
    keep_K: tuple[bool, ...]
    """[K of `fed`] True for completions that are trained."""
    target_K: tuple[float, ...] | None
    """[K of `fed`] what the objective fixed beforehand."""
    idle: bool
    """Whether its gradient is zero where the policy is its own anchor."""

    @classmethod
    def of(
        cls, group: Group, fed_K: Sequence[bool], keep_K: Sequence[bool],
        target_K: Sequence[float] | None, *, idle: bool,
    ) -> Item:  # fmt: skip
        """The group with those of its completions that go through the model."""
        return cls(
            group=group, fed=group.only([i for i, fed in enumerate(fed_K) if fed]),
            fed_K=tuple(fed_K), keep_K=tuple(keep_K),
            target_K=None if target_K is None else tuple(target_K), idle=idle,
        )  # fmt: skip

    def part(self, start: int, stop: int) -> Item:
        """With the fed completions [start, stop) alone."""
        if (start, stop) == (0, len(self.keep_K)):
            return self
        return replace(
            self,
            fed=self.fed.only(range(start, stop)),
            first=self.first + start,
            keep_K=self.keep_K[start:stop],
            target_K=None if self.target_K is None else self.target_K[start:stop],
        )

    @property
    def trained(self) -> list[Completion]:
        """Completions that count."""
        return [c for c, keep in zip(self.fed.completions, self.keep_K, strict=True) if keep]

    def pack(self) -> Packed:
        """What another rank needs besides the group itself."""
        return {
            "uid": self.group.uid, "gid": self.group.gid, "fed": list(self.fed_K),
            "idle": self.idle, "keep": list(self.keep_K),
            "target": self.target_K and list(self.target_K),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of what is trained in one optimizer step, over all ranks: what losses are normalised by."""

    completions: int
    tokens: int
    groups: int

    @classmethod
    def of(cls, items: Sequence[Item]) -> Sizes:
        """Counts these items."""
        trained = [item.trained for item in items]
        return cls(
            completions=sum(len(part) for part in trained),
            tokens=sum(len(c.token_ids) for part in trained for c in part),
            groups=sum(bool(part) for part in trained),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """This rank's part of one optimizer step."""

    items: list[Item]
    sizes: Sizes
    """Of the whole step."""

    @classmethod
    def unpack(
        cls, packed: Sequence[Packed], sizes: Mapping[str, int], groups: Mapping[str, Group]
    ) -> Share:
        """From what rank 0 packed, and the groups themselves."""
        items = [
            Item.of(groups[one["uid"]], one["fed"], one["keep"], one["target"], idle=one["idle"])
            for one in packed
        ]
        return cls(items=items, sizes=Sizes(**sizes))


def select(objective: Objective, groups: Sequence[Group]) -> list[Item]:
    """What the objective wants of a whole batch. Raises SppoError when some groups have rewards and
    others preferences.
    """
    selection = objective.select(_scored(groups))
    sizes = [len(g.completions) for g in groups]
    found = []
    for group, fed_K, keep_K, target_K, idle in zip(
        groups,
        torch.split(selection.fed_N, sizes),
        torch.split(selection.keep_N, sizes),
        [None] * len(groups)
        if selection.target_N is None
        else torch.split(selection.target_N, sizes),
        selection.idle_G.tolist(),
        strict=True,
    ):
        there_K = torch.tensor([len(c.token_ids) > 0 for c in group.completions])
        fed_K = fed_K.cpu() & there_K
        target = None if target_K is None else target_K.cpu()[fed_K].tolist()
        keep = keep_K.cpu()[fed_K].tolist()
        found.append(Item.of(group, fed_K.tolist(), keep, target, idle=idle))
    return found


def mini_batches(items: Sequence[Item], count: int, epochs: int, seed: str) -> list[list[Item]]:
    """The items of each optimizer step: disjoint mini-batches within an epoch, in order of arrival
    in the first and shuffled anew by the seed in each later one.
    """
    size, steps = len(items) // count, []
    for epoch in range(epochs):
        shuffled = random.Random(f"{seed} {epoch}").sample(items, len(items))
        order = shuffled if epoch else items
        steps += [list(order[i * size : (i + 1) * size]) for i in range(count)]
    return steps


def fed_items(items: Sequence[Item], *, own_anchor: bool, seed: int) -> list[Item]:
    """Those that go through the model. Where the policy is its own anchor idle groups stay out, but
    for a sample that tells of the metrics of the others.
    """
    idle = [i for i, item in enumerate(items) if item.idle] if own_anchor else []
    probed = random.Random(seed).sample(idle, -(-len(idle) // PROBED_SHARE))
    out = set(idle) - set(probed)
    return [item for i, item in enumerate(items) if i not in out and item.fed.completions]


def deal(steps: Sequence[Sequence[Item]], ranks: int, share_prompt: bool) -> list[list[list[Item]]]:
    """Items of each step for each rank, in their order: the longest first, each to the rank that
    has fewest tokens so far. A group that comes again stays with its rank, which knows its anchor.
    """
    owners: dict[str, int] = {}
    dealt = []
    for items in steps:
        tokens = [sum(batching.row_tokens(item.fed, share_prompt)) for item in items]
        loads = [0] * ranks
        for item, n in zip(items, tokens, strict=True):
            if item.group.uid in owners:
                loads[owners[item.group.uid]] += n
        for i in sorted(range(len(items)), key=lambda i: -tokens[i]):
            if items[i].group.uid not in owners:
                owner = owners[items[i].group.uid] = loads.index(min(loads))
                loads[owner] += tokens[i]
        dealt.append([[i for i in items if owners[i.group.uid] == rank] for rank in range(ranks)])
    return dealt


def _scored(groups: Sequence[Group]) -> Scored:
    rewarded = [g for g in groups if g.preferences is None]
    compared = [g for g in groups if g.preferences is not None]
    if rewarded and compared:
        raise SppoError(
            f"group {rewarded[0].uid} has rewards, group {compared[0].uid} of the same batch "
            "preferences: a scorer must return one or the other (objective.link makes preferences "
            "of rewards)"
        )
    completions = [c for g in groups for c in g.completions]
    sizes = torch.tensor([0, *(len(g.completions) for g in groups)])
    return Scored(
        rewards_N=torch.cat([torch.tensor(g.rewards) for g in groups]) if rewarded else None,
        preferences=tuple(torch.tensor(g.preferences) for g in groups) if compared else None,
        group_offsets=sizes.cumsum(0),
        length_N=torch.tensor([len(c.token_ids) for c in completions]),
        finished_N=torch.tensor([c.finish_reason != "length" for c in completions]),
    )
