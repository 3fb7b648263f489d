"""Training groups that have come in and are in no optimizer step yet."""

from __future__ import annotations

import time
from dataclasses import replace

from sppo.learner.frames import Frames
from sppo.learner.held import Held
from sppo.learner.ledger import Ledger
from sppo.tasks.tickets import training_index
from sppo.transport.broker import Tickets
from sppo.types import Group, QueueEntry


class Ready:
    """By the index of their tickets."""

    def __init__(self, broker: Tickets, ledger: Ledger, frames: Frames, held: Held) -> None:
        self._broker = broker
        self._ledger = ledger
        self._frames = frames
        self._held = held
        self._groups: dict[int, Group] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, index: int) -> bool:
        return index in self._groups

    def recall(self) -> None:
        """Groups that an earlier life moved to the disk and that its checkpoint does not cover."""
        for group in self._frames.spooled(self._lacks):
            self._groups[training_index(group.uid)] = group

    def _lacks(self, uid: str) -> bool:
        index = training_index(uid)
        open_ = index < self._ledger.next_index and not self._ledger.settled(uid)
        return open_ and index not in self._groups

    def take(self, entry: QueueEntry) -> bool:
        """A claimed group; whether it is of use."""
        index = training_index(entry.uid)
        used = index < self._ledger.next_index and self._ledger.settled(entry.uid)
        if used or index in self._groups:
            # Covered by the checkpoint this life began with; or made twice, because the broker lost
            # its newest writes.
            self._broker.settle([entry])
            return False
        group = self._frames.read(entry)
        if group is None:
            return False
        self._held.add(entry)
        self._groups[index] = replace(group, times=(*group.times, time.time()))
        return True

    def oldest(self, count: int) -> list[Group] | None:
        """Of issued tickets, in order; None if fewer are here."""
        usable = sorted(i for i in self._groups if i < self._ledger.next_index)[:count]
        return None if len(usable) < count else [self._groups[i] for i in usable]

    def all(self) -> list[Group]:
        """In the order in which they came."""
        return list(self._groups.values())

    def remove(self, uid: str) -> None:
        """Forget the group of this ticket, if it is here."""
        self._groups.pop(training_index(uid), None)
