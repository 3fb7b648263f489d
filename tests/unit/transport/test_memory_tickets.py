"""Tickets and leases in memory: caps, and waiting for what comes."""

from __future__ import annotations

import threading
import time

from sppo.config import BrokerConfig
from sppo.transport import codec
from sppo.transport.broker import PushResult
from sppo.transport.memory import MemoryBroker
from sppo.transport.memory_tickets import wait_for
from sppo.types import Version
from tests import makers


def test_waiting_ends_with_the_first_find_or_with_the_time() -> None:
    changed, found = threading.Condition(), list[int]()

    def bring() -> None:
        with changed:
            found.append(1)
            changed.notify_all()

    with changed:
        assert wait_for(changed, lambda: found, 0.01) == []
        threading.Timer(0.05, bring).start()
        started = time.monotonic()
        assert wait_for(changed, lambda: found, 5) == [1]
        assert time.monotonic() - started < 3


def test_the_queue_is_full_by_bytes_too() -> None:
    one = len(codec.encode_group(makers.group("train-000000000")))
    broker = MemoryBroker(BrokerConfig().model_copy(update={"max_bytes": one + one // 2}))
    broker.tickets.open_epoch("a")
    broker.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(2)])
    for _ in range(2):
        broker.leases.lease(Version(epoch="a", n=0))
    assert broker.leases.push(makers.group("train-000000000")) is PushResult.OK
    assert broker.leases.push(makers.group("train-000000001")) is PushResult.FULL
    assert broker.depths()["bytes"] == one
    broker.tickets.settle(broker.tickets.claim(1, 0))
    assert broker.leases.push(makers.group("train-000000001")) is PushResult.OK
