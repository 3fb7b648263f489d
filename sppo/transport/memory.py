"""The broker in one process' memory: the same contract as the Redis broker, for unit tests and
small scripts.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict

from sppo.config import BrokerConfig
from sppo.transport.broker import Broker, Channel, Mailbox, Registry
from sppo.transport.memory_tickets import MemoryLeases, MemoryTickets, Work, wait_for
from sppo.types import Member


class MemoryBroker(Broker):
    """One object stands for the server and is shared by threads; `session()` gives each learner
    life its own fence.
    """

    run_key = "memory"
    registry: MemoryRegistry
    mailbox: MemoryMailbox
    work: Work
    """Where every ticket is."""

    def __init__(
        self, config: BrokerConfig | None = None, *, server: MemoryBroker | None = None
    ) -> None:
        self.work = server.work if server else Work(config or BrokerConfig())
        self.registry = server.registry if server else MemoryRegistry()
        self.mailbox = server.mailbox if server else MemoryMailbox()
        self.leases = MemoryLeases(self.work)
        self.tickets = MemoryTickets(self.work, self.leases)

    def session(self) -> MemoryBroker:
        """Another client of the same server."""
        return MemoryBroker(server=self)

    def ping(self) -> str:
        return self.work.life

    def depths(self) -> dict[str, int]:
        return self.work.depths()

    def close(self) -> None:
        """Nothing to release."""


class MemoryRegistry(Registry):
    """Who is there, and who should stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[str, tuple[Member, float]] = {}
        self._stop: dict[str, str] = {}

    def heartbeat(self, member: Member, ttl_s: float) -> None:
        with self._lock:
            self._members[member.name] = (member, time.monotonic() + ttl_s)

    def leave(self, name: str) -> None:
        with self._lock:
            self._members.pop(name, None)

    def members(self) -> list[Member]:
        now = time.monotonic()
        with self._lock:
            return [m for _, (m, deadline) in sorted(self._members.items()) if deadline > now]

    def request_stop(self, audience: str, reason: str) -> None:
        self._stop[audience] = reason

    def stop_reason(self, *audiences: str) -> str:
        return next((self._stop[a] for a in audiences if self._stop.get(a)), "")


class MemoryMailbox(Mailbox):
    """Messages; a position is how many came before."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: defaultdict[Channel, list[bytes]] = defaultdict(list)

    def send(self, channel: Channel, message: bytes) -> None:
        with self._changed:
            self._messages[channel].append(message)
            self._changed.notify_all()

    def tail(self, channel: Channel) -> str:
        with self._changed:
            return str(len(self._messages[channel]))

    def receive(self, channel: Channel, after: str, wait_s: float) -> list[tuple[str, bytes]]:
        def newer() -> list[tuple[str, bytes]]:
            messages = self._messages[channel]
            return [(str(i + 1), messages[i]) for i in range(int(after), len(messages))]

        with self._changed:
            return wait_for(self._changed, newer, wait_s)
