"""The learner's side on a real server: what the contract of every broker does not see."""

from __future__ import annotations

import pytest

from sppo.transport import redis_tickets
from sppo.transport.broker import PushResult
from sppo.transport.client import Connection
from sppo.transport.redis_broker import RedisBroker
from sppo.types import Version
from tests import makers

V = Version(epoch="a", n=0)


def produce(broker: RedisBroker, count: int) -> None:
    broker.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(count)])
    for _ in range(count):
        lease = broker.leases.lease(V)
        assert lease is not None
        assert broker.leases.push(makers.group(lease.ticket.uid)) is PushResult.OK


def test_more_than_one_reading_s_worth_of_pending_groups_is_found(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_tickets, "PENDING_AT_ONCE", 2)
    produce(broker, 5)
    claimed = broker.tickets.claim(10, 1)
    assert broker.tickets.pending() == claimed
    assert len(claimed) == 5


def test_more_than_one_trip_s_worth_of_groups_is_settled(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_tickets, "SETTLED_AT_ONCE", 2)
    produce(broker, 5)
    broker.tickets.settle(broker.tickets.claim(10, 1))
    assert broker.leftovers() == []


def test_a_server_that_lost_the_queue_has_an_empty_one(
    broker: RedisBroker, server: Connection
) -> None:
    # Given a learner at work
    assert broker.tickets.claim(1, 0) == []
    # When the server loses its keys
    server.client.delete(server.key("q"), server.key("epoch"), server.key("epoch:before"))
    # Then the learner has the run again, and goes on
    assert broker.tickets.claim(1, 0) == []
    produce(broker, 1)
    assert len(broker.tickets.claim(1, 1)) == 1


def test_a_rejected_evaluation_waits_among_evaluations(
    broker: RedisBroker, server: Connection
) -> None:
    broker.tickets.issue([makers.ticket("eval-a-0")])
    broker.leases.lease(V)
    broker.leases.push(makers.group("eval-a-0"))
    (entry,) = broker.tickets.claim(1, 1)
    broker.tickets.reject(entry, "bad frame")
    assert server.client.lrange(server.key("todo:eval"), 0, -1) == [b"eval-a-0"]
    assert broker.depths()["todo"] == 0
