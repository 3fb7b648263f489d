"""A generator in the registry: its name, what it tells of itself, and its leave."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sppo.errors import ConfigError, SppoError
from sppo.metrics import BusyClock
from sppo.transport.broker import HEARTBEAT_S, HEARTBEAT_TTL_S, Registry
from sppo.types import Member, Version

log = logging.getLogger(__name__)

LONGEST_WORDS = 600


class Presence:
    """One life of one name.

    await presence.take_name()
    await presence.beat(applied, world_size)        # every HEARTBEAT_S
    await presence.leave()
    """

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self.name = name
        self._life = secrets.token_hex(8)
        self._refusals, self._refusal = 0, ""
        self.clock = BusyClock()
        self.tokens = 0
        """Sampled in this life."""
        self.in_hand = 0
        """Groups leased and not yet pushed."""
        self.scoring = 0
        """How many of these are with the scorer."""
        self.spent = ""
        """Why the scorer scores nothing more."""
        self.answers = 0
        """Of the engine to the question whether it can step."""

    def refused(self, uid: str, error: Exception) -> None:
        """Count a ticket that failed here, and keep why."""
        self._refusals, self._refusal = self._refusals + 1, f"{uid}: {error}"[:LONGEST_WORDS]

    async def take_name(self) -> None:
        """Wait for an earlier life of this name to be gone. Raises ConfigError if another process
        goes on using it.
        """
        try:
            async with asyncio.timeout(HEARTBEAT_TTL_S + HEARTBEAT_S):
                while any(
                    m.name == self.name for m in await asyncio.to_thread(self._registry.members)
                ):
                    await asyncio.sleep(HEARTBEAT_S / 2)
        except TimeoutError:
            raise ConfigError(
                f"another generator is at work as {self.name}: choose another --name"
            ) from None

    @contextmanager
    def with_scorer(self) -> Iterator[None]:
        """While a group is with the scorer."""
        self.scoring += 1
        try:
            yield
        finally:
            self.scoring -= 1

    async def beat(
        self, applied: Version | None, world_size: int, counters: Mapping[str, float] | None = None
    ) -> None:
        """Tell the others that this generator is there, with what version, and how it fares; and
        what a scorer in it counts.
        """
        member = Member(
            name=self.name,
            role="generator",
            life=self._life,
            host=socket.gethostname(),
            world_size=world_size,
            applied=str(applied) if applied else "",
            busy_s=self.clock.busy_s,
            ready_s=self.clock.ready_s,
            tokens=self.tokens,
            in_hand=self.in_hand,
            scoring=self.scoring,
            counters=dict(counters or {}),
            refusals=self._refusals,
            refusal=self._refusal,
            spent=self.spent[:LONGEST_WORDS],
            progress=self.answers,
        )
        await asyncio.to_thread(self._registry.heartbeat, member, HEARTBEAT_TTL_S)

    async def leave(self) -> None:
        """Be gone at once; by expiry if the broker cannot be asked."""
        try:
            await asyncio.to_thread(self._registry.leave, self.name)
        except SppoError as error:
            log.warning("%s while leaving; its effect follows by expiry", error)
