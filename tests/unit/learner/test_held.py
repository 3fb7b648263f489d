"""Claimed groups stay with the broker until a checkpoint, or move to the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.config import BrokerConfig
from sppo.learner.held import Held
from sppo.learner.spool import Spool
from sppo.transport.memory import MemoryBroker
from sppo.types import QueueEntry
from tests import makers


class Setting:
    def __init__(self, folder: Path, count: int, limits: BrokerConfig) -> None:
        self.broker, self.spool = MemoryBroker(), Spool(folder)
        self.held = Held(self.broker.tickets, self.spool, limits)
        self.uids = [f"train-{i:09d}" for i in range(count)]
        self.broker.tickets.issue([makers.ticket(uid) for uid in self.uids])
        for uid in self.uids:
            self.broker.leases.lease(makers.V0)
            self.broker.leases.push(makers.group(uid))
        self.entries: list[QueueEntry] = self.broker.tickets.claim(count, 0)
        for entry in self.entries:
            self.held.add(entry)


def test_a_checkpoint_ends_what_it_covers_and_nothing_else(tmp_path: Path) -> None:
    there = Setting(tmp_path, 3, BrokerConfig())
    there.held.spill()  # far from the budget
    assert there.broker.depths()["queued"] == 3
    there.held.settle(lambda uid: uid != there.uids[1])
    assert there.held.uids() == {there.uids[1]}
    assert there.broker.depths()["queued"] == 1
    assert [entry in there.held for entry in there.entries] == [False, True, False]


def test_what_the_server_lost_is_not_held(tmp_path: Path) -> None:
    there = Setting(tmp_path, 2, BrokerConfig())
    there.held.keep_only(there.entries[:1])
    assert there.held.uids() == {there.uids[0]}


@pytest.mark.parametrize(
    ("limits", "moves"),
    [({"max_groups": 4}, False), ({"max_groups": 3}, True), ({"max_bytes": 500}, True)],
)
def test_half_of_the_brokers_budget_moves_to_the_disk(
    limits: dict[str, int], moves: bool, tmp_path: Path
) -> None:
    there = Setting(tmp_path, 2, BrokerConfig(**limits))
    there.held.spill()
    assert (there.held.uids() == set()) is moves
    assert there.broker.depths()["queued"] == (0 if moves else 2)
    assert [uid for uid, _ in there.spool.frames()] == (there.uids if moves else [])
    there.held.settle(lambda uid: True)
    assert list(there.spool.frames()) == []
