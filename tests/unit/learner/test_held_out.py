"""The tickets of an evaluation: outside admission, settled at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sppo.learner.frames import Frames
from sppo.learner.held_out import HeldOut
from sppo.learner.spool import Spool
from sppo.transport.memory import MemoryBroker
from sppo.types import Ticket
from tests import makers


class Factory:
    def evaluation(self, name: str, n: int, **_: Any) -> list[Ticket]:
        return [makers.ticket(f"eval-{name}-{i}", min_version=n) for i in range(3)]


def test_it_is_over_when_each_question_has_a_group_or_is_dead(tmp_path: Path) -> None:
    broker, tickets = MemoryBroker(), Factory()
    broker.tickets.open_epoch(makers.V0.epoch)
    asked: Any = tickets
    held_out = HeldOut(broker.tickets, asked, Frames(broker.tickets, Spool(tmp_path), 100))
    uids = held_out.start("a-0", 0)
    assert list(held_out.open()) == uids
    for _ in range(2):
        lease = broker.leases.lease(makers.V0)
        assert lease is not None
        broker.leases.push(makers.group(lease.ticket.uid))
    assert [held_out.take(entry) for entry in broker.tickets.claim(9, 0)] == [True, True]
    assert broker.depths()["queued"] == 0
    (left,) = held_out.open()
    assert held_out.finish(set()) is None
    groups = held_out.finish({left})
    assert groups is not None
    assert [g.uid for g in groups] == [uid for uid in uids if uid != left]
    assert held_out.open() == {}


def test_a_group_of_an_older_evaluation_is_settled_and_forgotten(tmp_path: Path) -> None:
    broker, factory = MemoryBroker(), Factory()
    broker.tickets.open_epoch(makers.V0.epoch)
    asked: Any = factory
    held_out = HeldOut(broker.tickets, asked, Frames(broker.tickets, Spool(tmp_path), 100))
    held_out.start("a-0", 0)
    lease = broker.leases.lease(makers.V0)
    assert lease is not None
    broker.leases.push(makers.group(lease.ticket.uid))
    held_out.start("b-1", 1)
    (entry,) = broker.tickets.claim(9, 0)
    assert not held_out.take(entry)
    assert broker.depths()["queued"] == 0
    assert len(held_out.open()) == 3
