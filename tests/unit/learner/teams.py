"""Ranks as threads of one process, each with a whole policy of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from torch import Tensor

from sppo.config import RunConfig
from sppo.learner.groups import InHand
from sppo.learner.model import Policy
from sppo.learner.objectives import Objective
from sppo.learner.optim import Optimizer
from sppo.learner.orders import Rank
from sppo.learner.ranks import Ranks
from sppo.learner.trainer import Trainer
from sppo.learner.where import Where
from sppo.transport import codec
from sppo.types import Group, Version

T = TypeVar("T")
PATIENCE_S = 60.0


class _Shared:
    """What the ranks of one team put down for each other."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size)
        self.values: list[Any] = [None] * size


class ThreadTeam:
    """See `sppo.learner.ranks.Ranks`."""

    mesh: Any = None

    def __init__(self, rank: int, size: int, shared: _Shared) -> None:
        self.rank, self.size, self._shared = rank, size, shared
        self.local, self.where = rank, Where()

    def _exchange(self, value: Any) -> list[Any]:
        self._shared.barrier.wait(PATIENCE_S)
        self._shared.values[self.rank] = value
        self._shared.barrier.wait(PATIENCE_S)
        return list(self._shared.values)

    def tell(self, message: dict[str, Any]) -> None:
        self.broadcast(message)

    def told(self) -> Iterator[dict[str, Any]]:
        while message := self.broadcast(None):
            yield message

    def broadcast(self, value: Any) -> Any:
        packed = codec.pack({"value": value}) if self.rank == 0 else b""
        return codec.unpack(self._exchange(packed)[0])["value"]

    def gather(self, value: Any) -> list[Any]:
        found = self._exchange(codec.pack({"value": value}))
        return [codec.unpack(one)["value"] for one in found] if self.rank == 0 else []

    def most(self, counts: Sequence[int]) -> list[int]:
        return [max(column) for column in zip(*self._exchange(list(counts)), strict=True)]

    def add(self, value: Tensor) -> Tensor:
        found = self._exchange(value.clone())
        return value.copy_(sum(found[1:], found[0]))

    def lost(self) -> str:
        return ""

    def noticed(self) -> None:
        """Nobody watches."""

    def close(self, *, at_once: bool = False) -> None:
        """Nothing to close."""


def together(size: int, work: Callable[[ThreadTeam], T]) -> list[T]:
    """What each rank makes of it, by rank."""
    shared = _Shared(size)

    def one(rank: int) -> T:
        try:
            return work(ThreadTeam(rank, size, shared))
        except BaseException:
            shared.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(one, rank) for rank in range(size)]
        errors = [f.exception() for f in futures]
    first = [e for e in errors if e and not isinstance(e, threading.BrokenBarrierError)]
    for error in (*first, *errors):
        if error is not None:
            raise error
    return [f.result() for f in futures]


class Told(InHand):
    """A rank that has all groups and lacks none."""

    def named(self, names: Sequence[tuple[str, str]]) -> Mapping[str, Group]:
        self._team.gather([])
        self._team.broadcast(None)
        return {uid: self._groups[uid] for uid, _ in names}


def train(
    config: RunConfig, policy: Policy, team: Ranks, groups: Sequence[Group], version: Version,
    published: Version | None = None, optimizer: Optimizer | None = None,
    objective: Objective | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """One batch by this rank; its records on rank 0."""
    optimizer = optimizer or Optimizer(config, policy.master, team)
    trainer = Trainer(config, policy, optimizer, team, objective)
    if team.rank:
        told = Told(team, groups)
        Rank(team=team, policy=policy, optimizer=optimizer, trainer=trainer, groups=told).follow()
        return []
    records = list(trainer.train(groups, version, published))
    if team.size > 1:
        team.tell({})
    return records
