"""A generator's side on a real server: full servers, and streams."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sppo.transport.broker import PushResult
from sppo.transport.client import Connection
from sppo.transport.redis_broker import RedisBroker
from sppo.transport.redis_leases import FRAME_TTL_S, RedisLeases
from sppo.types import Version
from tests import makers

V = Version(epoch="a", n=0)


def test_a_stream_is_what_the_caller_says_whatever_the_uid_looks_like(broker: RedisBroker) -> None:
    # Given tickets whose names say nothing of their streams
    broker.tickets.issue([makers.ticket("train-like", stream="eval")])
    # When one is handed back, and fails
    broker.leases.lease(V)
    broker.leases.release("train-like", "eval")
    assert (broker.depths()["eval"], broker.depths()["todo"]) == (1, 0)
    broker.leases.lease(V)
    broker.leases.fail("train-like", "eval", "try 1", "refused")
    # Then it waits in its own list, and is given up as what it is
    assert (broker.depths()["eval"], broker.depths()["todo"]) == (1, 0)
    broker.leases.fail("train-like", "eval", "try 2", "refused", final=True)
    assert [letter.stream for letter in broker.tickets.dead_letters()] == ["eval"]


def test_a_full_queue_is_asked_for_room_before_the_frame_is_sent_again(
    broker: RedisBroker, server: Connection, connection: Callable[..., Connection]
) -> None:
    broker.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(2)])
    leases = RedisLeases(connection(max_groups=1))
    uids = [lease.ticket.uid for _ in range(2) if (lease := leases.lease(V))]
    assert leases.push(makers.group(uids[0])) is PushResult.OK

    def frames_sent() -> int:
        return int(server.client.info("commandstats")["cmdstat_set"]["calls"])

    before = frames_sent()
    assert leases.push(makers.group(uids[1])) is PushResult.FULL
    assert frames_sent() == before + 1
    assert leases.push(makers.group(uids[1])) is PushResult.FULL
    assert frames_sent() == before + 1
    broker.tickets.settle(broker.tickets.claim(1, 1))
    assert leases.push(makers.group(uids[1])) is PushResult.OK


def test_a_server_that_is_out_of_memory_is_a_full_queue(
    broker: RedisBroker, server: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    broker.tickets.issue([makers.ticket()])
    broker.leases.lease(V)
    leases = RedisLeases(server)
    with monkeypatch.context() as patch:

        def refuses(*_: object, **__: object) -> None:
            raise redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'")

        patch.setattr(server.client, "set", refuses)
        assert leases.push(makers.group()) is PushResult.FULL
    assert leases.push(makers.group()) is PushResult.OK


def test_a_frame_that_was_never_shown_expires(broker: RedisBroker, server: Connection) -> None:
    broker.tickets.issue([makers.ticket()])
    leases = RedisLeases(server)
    group = makers.group()
    server.client.set(server.key(f"b:{group.gid}"), b"half", ex=FRAME_TTL_S)
    assert broker.leftovers() == ["open tickets 1"]
    assert leases.push(group) is PushResult.OK
    assert server.client.ttl(server.key(f"b:{group.gid}")) == -1
