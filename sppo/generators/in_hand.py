"""The tickets that a generator has in hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sppo.errors import SppoError
from sppo.faults import point
from sppo.transport.broker import Leases
from sppo.types import Lease, Version

log = logging.getLogger(__name__)

IDLE_S = 0.05
LONGEST_IDLE_S = 0.2
"""Between two questions for a ticket where there is none: each is work for the broker."""


class InHand:
    """Leased, renewed while they are worked on, and given back when this generator leaves.

    while lease := await in_hand.next(lambda: applied): ...     # one of `slots` at a time
    in_hand.free(); in_hand.done(lease)
    """

    def __init__(self, leases: Leases, slots: int) -> None:
        self._leases = leases
        self._held: dict[str, Lease] = {}
        self._slots = asyncio.Semaphore(slots)
        self._closed = False
        self._asking = False

    def __len__(self) -> int:
        return len(self._held)

    def close(self) -> None:
        """Take no more."""
        self._closed = True

    async def next(self, applied: Callable[[], Version | None]) -> Lease | None:
        """A ticket and a slot for it; None once closed."""
        await self._slots.acquire()
        idle_s = IDLE_S
        while not self._closed:
            version = applied()
            self._asking = version is not None
            lease = await asyncio.to_thread(self._leases.lease, version) if version else None
            self._asking = False
            # A ticket whose lease expired may come back to us while we still work on it: one
            # attempt is enough.
            if lease is not None and lease.ticket.uid not in self._held:
                self._held[lease.ticket.uid] = lease
                point("generator.leased")
                return lease
            await asyncio.sleep(idle_s)
            idle_s = min(2 * idle_s, LONGEST_IDLE_S)
        return None

    def free(self) -> None:
        """Give the slot of a ticket back."""
        self._slots.release()

    def done(self, lease: Lease) -> None:
        """Nothing is left to do for this ticket."""
        self._held.pop(lease.ticket.uid, None)

    async def renew(self, every_s: float) -> None:
        """Keep the leases in hand, for ever."""
        while True:
            await asyncio.sleep(every_s)
            await asyncio.to_thread(self._leases.renew, list(self._held))

    async def finished(self, limit_s: float) -> None:
        """Wait until nothing is in hand, or for so long."""
        try:
            async with asyncio.timeout(limit_s):
                while self._held or self._asking:
                    await asyncio.sleep(IDLE_S)
        except TimeoutError:
            log.info("%d groups are handed back", len(self._held))

    async def give_back(self) -> None:
        """Release what is in hand; leases expire by themselves if the broker cannot be asked."""
        for uid, lease in list(self._held.items()):
            try:
                await asyncio.to_thread(self._leases.release, uid, lease.ticket.stream)
            except SppoError as error:
                log.warning("%s while leaving; its effect follows by expiry", error)
                break
