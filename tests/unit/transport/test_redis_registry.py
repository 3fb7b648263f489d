"""The registry on a real server: what cannot be read, what expires, and which run has a name."""

from __future__ import annotations

import time
import uuid

import pytest

from sppo.transport import codec
from sppo.transport.client import Connection
from sppo.transport.redis_registry import MEMBER_STOP_TTL_S, RedisRegistry
from sppo.types import Member


def test_an_entry_that_cannot_be_read_is_nobody(server: Connection) -> None:
    registry = RedisRegistry(server)
    registry.heartbeat(Member(name="generator-0", role="generator"), 60)
    for name, value in {"a": b"nonsense", "b": codec.pack({"name": "b", "colour": "red"})}.items():
        server.client.sadd(server.key("members"), name)
        server.client.set(server.key(f"hb:{name}"), value)
    assert [m.name for m in registry.members()] == ["generator-0"]


def test_a_member_is_alive_until_it_leaves(server: Connection) -> None:
    registry = RedisRegistry(server)
    assert not registry.alive("learner-0")
    registry.heartbeat(Member(name="learner-0", role="learner"), 60)
    assert registry.alive("learner-0")
    registry.leave("learner-0")
    assert not registry.alive("learner-0")


def test_a_request_to_one_member_expires_and_one_to_all_lasts(server: Connection) -> None:
    registry = RedisRegistry(server)
    registry.request_stop("generator-1", "scaled down")
    registry.request_stop("workers", "done")
    left = server.client.ttl(server.key("stop:generator-1"))
    assert 0 < left <= MEMBER_STOP_TTL_S
    assert server.client.ttl(server.key("stop:workers")) == -1
    assert registry.stop_reason("generator-0", "workers", "generator-1") == "done"


def test_what_was_announced_is_said_again_to_a_server_that_lost_it(server: Connection) -> None:
    registry, name = RedisRegistry(server), uuid.uuid4().hex
    registry.announce_again()  # nothing yet
    assert registry.get_run(name) is None
    registry.announce(name, b"record")
    server.client.delete(f"sppo:{name}:run")
    registry.announce_again()
    assert RedisRegistry(server).get_run(name) == b"record"


def test_a_heartbeat_says_how_far_its_clock_is_ahead(
    server: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, true = RedisRegistry(server), time.time
    monkeypatch.setattr(time, "time", lambda: true() + 7.0)
    registry.heartbeat(Member(name="generator-0", role="generator"), 60)
    (member,) = registry.members()
    assert member.ahead_s == pytest.approx(7.0, abs=0.5)


def test_a_clock_that_could_not_be_compared_is_compared_at_the_next_heartbeat(
    server: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, true, late = RedisRegistry(server), time.time, iter([0.0, 5.0])
    monkeypatch.setattr(time, "time", lambda: true() + 7.0 + next(late, 5.0))
    registry.heartbeat(member := Member(name="generator-0", role="generator"), 60)
    registry.heartbeat(member, 60)
    assert registry.members()[0].ahead_s == pytest.approx(12.0, abs=0.5)
