"""Sessions of the broker in memory: one server, a fence of each one's own."""

from __future__ import annotations

import pytest

from sppo.config import BrokerConfig
from sppo.errors import FencedError
from sppo.transport.memory import MemoryBroker
from sppo.types import Member, Version
from tests import makers


def test_sessions_share_one_server() -> None:
    # Given two clients of one server
    server = MemoryBroker(BrokerConfig(max_attempts=1))
    first, second = server.session(), server.session()
    # When the one writes
    first.tickets.open_epoch("a")
    first.tickets.issue([makers.ticket()])
    first.registry.heartbeat(Member(name="generator-0", role="generator"), 60)
    first.mailbox.send("control", b"message")
    # Then the other sees it
    assert second.ping() == first.ping() == server.ping()
    assert second.depths()["todo"] == 1
    assert [m.name for m in second.registry.members()] == ["generator-0"]
    assert second.mailbox.receive("control", "0", 0) == [("1", b"message")]
    assert second.leases.lease(Version(epoch="a", n=0)) is not None
    assert second.leases.fail(makers.ticket().uid, "train", "try 1", "refused")
    assert MemoryBroker().ping() != server.ping()


def test_each_session_has_its_own_fence() -> None:
    server = MemoryBroker()
    first, second = server.session(), server.session()
    first.tickets.open_epoch("a")
    second.tickets.open_epoch("b")
    second.tickets.confirm_epoch()
    with pytest.raises(FencedError):
        first.tickets.confirm_epoch()
