"""Claimed training groups that the broker keeps for the learner until a checkpoint covers them.

When they take half of the broker's budget they move to the learner's disk, so a long way to the
next checkpoint cannot block the queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from sppo.config import BrokerConfig
from sppo.faults import point
from sppo.learner.spool import Spool
from sppo.transport.broker import Tickets
from sppo.types import QueueEntry

log = logging.getLogger(__name__)

SPILL_SHARE = 0.5


class Held:
    """The broker's part of them, and the disk's."""

    def __init__(self, broker: Tickets, spool: Spool, limits: BrokerConfig) -> None:
        self._broker = broker
        self._spool = spool
        self._limits = limits
        self._entries: dict[tuple[str, str], QueueEntry] = {}
        """A server that lost everything may name another one so."""

    def __contains__(self, entry: QueueEntry) -> bool:
        return _key(entry) in self._entries

    def add(self, entry: QueueEntry) -> None:
        """This one was claimed and is of use."""
        self._entries[_key(entry)] = entry

    def keep_only(self, known: Iterable[QueueEntry]) -> None:
        """The server knows of these; it may have lost some."""
        kept = {_key(entry) for entry in known}
        self._entries = {key: entry for key, entry in self._entries.items() if key in kept}

    def uids(self) -> set[str]:
        """Tickets of those that the broker has."""
        return {entry.uid for entry in self._entries.values()}

    def spill(self) -> None:
        """Move what is claimed to the disk before it fills the broker, which would hold generators
        back for ever.
        """
        share = max(
            sum(e.nbytes for e in self._entries.values()) / self._limits.max_bytes,
            len(self._entries) / self._limits.max_groups,
        )
        if share <= SPILL_SHARE:
            return
        entries = list(self._entries.values())
        frames = {entry.uid: self._broker.fetch(entry) for entry in entries}
        self._spool.write({uid: frame for uid, frame in frames.items() if frame is not None})
        self._broker.settle(entries)
        self._entries.clear()
        point("learner.spool.settled")
        log.info("%d groups moved to the disk until the next checkpoint", len(entries))

    def settle(self, covered: Callable[[str], bool]) -> None:
        """A durable checkpoint covers these tickets: nobody need keep their groups."""
        done = [e for e in self._entries.values() if covered(e.uid)]
        self._broker.settle(done)
        for entry in done:
            del self._entries[_key(entry)]
        self._spool.drop(covered)


def _key(entry: QueueEntry) -> tuple[str, str]:
    return entry.entry_id, entry.gid
