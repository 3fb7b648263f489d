"""The tickets that a generator has in hand."""

from __future__ import annotations

import asyncio
import time

import pytest

from sppo.errors import BrokerError
from sppo.generators.in_hand import InHand
from sppo.transport.memory import MemoryBroker
from sppo.types import Version
from tests import makers

APPLIED = Version(epoch="e", n=0)


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    made.tickets.open_epoch("e")
    return made


def test_no_more_are_taken_than_there_are_slots(broker: MemoryBroker) -> None:
    broker.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(3)])

    async def story() -> None:
        held = InHand(broker.leases, slots=1)
        first = await held.next(lambda: APPLIED)
        assert first is not None
        third = asyncio.ensure_future(held.next(lambda: APPLIED))
        await asyncio.sleep(0.1)
        assert not third.done()
        held.free()
        held.done(first)
        assert await third is not None
        assert len(held) == 1

    asyncio.run(story())


def test_nothing_is_taken_before_the_first_weights_nor_after_the_end(broker: MemoryBroker) -> None:
    broker.tickets.issue([makers.ticket()])

    async def story() -> None:
        held = InHand(broker.leases, slots=2)
        waiting = asyncio.ensure_future(held.next(lambda: None))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        held.close()
        assert await waiting is None
        assert len(held) == 0

    asyncio.run(story())


def test_what_is_left_is_given_back_for_another(broker: MemoryBroker) -> None:
    broker.tickets.issue([makers.ticket()])

    async def story() -> None:
        held = InHand(broker.leases, slots=1)
        assert await held.next(lambda: APPLIED) is not None
        started = time.monotonic()
        await held.finished(0.2)  # still in hand
        assert 0.2 <= time.monotonic() - started < 5
        await held.give_back()
        other = InHand(broker.leases, slots=1)
        assert await other.next(lambda: APPLIED) is not None

    asyncio.run(story())


def test_a_broker_that_is_gone_does_not_keep_it(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.tickets.issue([makers.ticket()])

    def gone(*_: object) -> None:
        raise BrokerError("gone")

    async def story() -> None:
        held = InHand(broker.leases, slots=1)
        await held.next(lambda: APPLIED)
        monkeypatch.setattr(broker.leases, "release", gone)
        await held.give_back()

    asyncio.run(story())
