"""What rank 0 has every rank do, itself among them.

    rank 0        rank.do(Keep(snapshot="probe", device="cpu"))    told to the others, then done
    rank 1 ..     rank.follow()                                    what they are told is done alike

Each order is a frozen dataclass of plain msgpack types and one `apply`, which is all that any rank
does for it. What `apply` gives piece by piece, rank 0 has use for; the others let it pass, because
every piece is made by all of them together. On the wire an order is a map: its name under `do`, and
its fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor

from sppo.learner.groups import Groups
from sppo.learner.model import Policy, Snapshot
from sppo.learner.optim import Optimizer
from sppo.learner.ranks import Ranks
from sppo.learner.stored import opened
from sppo.learner.writer import Writer
from sppo.types import Group, Version

if TYPE_CHECKING:
    from sppo.learner.sharded import ShardedPolicy

AnyPolicy: TypeAlias = "Policy | ShardedPolicy"
Named = Sequence[str]
"""Ticket and gid of a group."""
Packed = Mapping[str, Any]
"""What a rank needs of a group besides the group itself; its ticket and gid among it."""


class Training(Protocol):
    """Every rank's part of training: `sppo.learner.trainer.Trainer`."""

    def take_steps(
        self, shares: Sequence[Sequence[Packed]], sizes: Sequence[Mapping[str, int]],
        groups: Mapping[str, Group], version: Version, published: Version,
    ) -> Iterator[Any]:  # fmt: skip
        """An optimizer step for each share."""

    def measure(
        self, groups: Sequence[Group], version: Version, snapshot: Snapshot | None
    ) -> Iterable[Any]:
        """|engine − learner| log-prob of the tokens that `version` sampled."""


class Order(Protocol):
    """One thing that all ranks do."""

    def apply(self, rank: Rank) -> Iterable[Any]:
        """This rank's part. What it gives must be exhausted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """What orders act on."""

    team: Ranks
    policy: AnyPolicy
    optimizer: Optimizer
    trainer: Training
    groups: Groups
    writer: Writer = field(default_factory=Writer)

    def stream(self, order: Order) -> Iterator[Any]:
        """Rank 0: have it done, and what it gives. It begins with the first piece that is asked
        for, and must be exhausted before another order.
        """
        message = pack(order)
        self.team.where.order(message["do"])
        self.team.tell(message)
        yield from order.apply(self)
        self.team.where.at("between two orders", patient=True)

    def do(self, order: Order) -> None:
        """Rank 0: have it done."""
        for _ in self.stream(order):
            pass

    def follow(self) -> None:
        """The others: until rank 0 is done. Raises RoleDiedError if it, or another, is gone."""
        for message in self.team.told():
            self.team.where.order(message["do"])
            for _ in unpack(message).apply(self):
                pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Take the optimizer steps of one batch."""

    shares: Sequence[Sequence[Sequence[Packed]]]
    """Of each step, of each rank: its groups."""
    sizes: Sequence[Mapping[str, int]]
    """What is trained in each step, over all ranks."""
    version: str
    published: str

    def apply(self, rank: Rank) -> Iterable[Any]:
        """Every rank's totals of each step, on rank 0."""
        mine = [ranks[rank.team.rank] for ranks in self.shares]
        groups = rank.groups.named([(g["uid"], g["gid"]) for share in mine for g in share])
        version, published = Version.parse(self.version), Version.parse(self.published)
        rank.team.where.at(f"training after step {version.n}")
        return rank.trainer.take_steps(mine, self.sizes, groups, version, published)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """Measure |engine − learner| on the groups of each rank."""

    groups: Sequence[Sequence[Named]]
    version: str
    snapshot: Snapshot | None

    def apply(self, rank: Rank) -> Iterable[Any]:
        """Every rank's gaps, on rank 0."""
        names = [(uid, gid) for uid, gid in self.groups[rank.team.rank]]
        found = rank.groups.named(names)
        version = Version.parse(self.version)
        return rank.trainer.measure([found[uid] for uid, _ in names], version, self.snapshot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Remember the weights, or those of a checkpoint."""

    snapshot: Snapshot
    device: str
    folder: str = ""
    """The checkpoint's, if it holds them."""

    def apply(self, rank: Rank) -> Iterable[Any]:
        """Nothing."""
        with ExitStack() as open_:
            there = (
                open_.enter_context(opened(Path(self.folder), self.snapshot))
                if self.folder
                else None
            )
            rank.policy.keep(self.snapshot, device=self.device, there=there)
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Forget a snapshot."""

    snapshot: Snapshot

    def apply(self, rank: Rank) -> Iterable[Any]:
        """Nothing."""
        rank.policy.drop(self.snapshot)
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What generators get."""

    snapshot: Snapshot | None = None

    def apply(self, rank: Rank) -> Iterable[Any]:
        """(name, computing weights) as the model's files name them."""
        return rank.policy.weights(self.snapshot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Have what a checkpoint holds written while training goes on."""

    folder: str
    """Where the ranks write; rank 0 makes it a checkpoint."""
    snapshots: Sequence[Snapshot]

    def apply(self, rank: Rank) -> Iterable[Any]:
        """How many bytes each rank writes, on rank 0, once all have begun."""
        kinds: dict[str, Iterable[tuple[str, Tensor]]] = {
            "model": rank.policy.masters(),
            "optimizer": rank.optimizer.state(),
            **{snapshot: rank.policy.kept(snapshot) for snapshot in self.snapshots},
        }
        team = rank.team
        nbytes = rank.writer.begin(Path(self.folder), kinds, rank=team.rank, size=team.size)
        return team.gather(nbytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Go on from a checkpoint."""

    folder: str

    def apply(self, rank: Rank) -> Iterable[Any]:
        """Nothing."""
        with opened(Path(self.folder), "model") as there:
            rank.policy.load(there)
        with opened(Path(self.folder), "optimizer") as there:
            rank.optimizer.load(there)
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Write the weights as a Hugging Face folder, but for its tokenizer."""

    folder: str
    dtype: str

    def apply(self, rank: Rank) -> Iterable[Any]:
        """The share of the training that rounding leaves, on rank 0."""
        return [rank.policy.export(Path(self.folder), getattr(torch, self.dtype))]


ORDERS: Mapping[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Train, Mismatch, Keep, Drop, Weights, Save, Load, Export),
    )
}  # fmt: skip


def pack(order: Order) -> dict[str, Any]:
    """For the wire."""
    given = {each.name: getattr(order, each.name) for each in fields(order)}  # type: ignore[arg-type]
    return {"do": type(order).__name__.lower(), **given}


def unpack(message: Mapping[str, Any]) -> Order:
    """Inverse of `pack`. Raises ValueError for an order that there is not."""
    given = dict(message)
    name = given.pop("do", None)
    if name not in ORDERS:
        raise ValueError(f"no order {name!r}")
    made: Order = ORDERS[name](**given)
    return made
