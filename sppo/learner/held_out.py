"""The tickets of one evaluation, and their groups as they come in: outside admission, never trained
on, settled at once.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from sppo.learner.frames import Frames
from sppo.tasks.tickets import TicketFactory
from sppo.transport.broker import Tickets
from sppo.types import Answer, Group, QueueEntry, Ticket


class HeldOut:
    """One evaluation at a time."""

    def __init__(self, broker: Tickets, tickets: TicketFactory, frames: Frames) -> None:
        self._broker = broker
        self._factory = tickets
        self._frames = frames
        self._tickets: dict[str, Ticket] = {}
        self._groups: dict[str, Group] = {}

    def start(
        self, name: str, n: int, *, paired: bool = False,
        against: Mapping[int, Answer] | None = None,
    ) -> list[str]:  # fmt: skip
        """Issue the held-out questions for version `n`, see `TicketFactory.evaluation`; returns
        their uids.
        """
        issued = self._factory.evaluation(name, n, paired=paired, against=against)
        self._tickets = {t.uid: t for t in issued}
        self._groups = {}
        self._broker.issue(list(self._tickets.values()))
        return list(self._tickets)

    def open(self) -> dict[str, Ticket]:
        """Tickets that no group has come of."""
        return {uid: t for uid, t in self._tickets.items() if uid not in self._groups}

    def take(self, entry: QueueEntry) -> bool:
        """A claimed group; whether it is one of this evaluation's and can be read."""
        expected = entry.uid in self._tickets
        if expected:
            group = self._frames.read(entry)
            if group is None:
                return False
            self._groups[entry.uid] = group
        self._broker.settle([entry])
        return expected

    def finish(self, dead: Container[str]) -> list[Group] | None:
        """The groups once all have come or are dead letters; None before that."""
        expected = [uid for uid in self._tickets if uid not in dead]
        if any(uid not in self._groups for uid in expected):
            return None
        groups = [self._groups[uid] for uid in expected]
        self._tickets, self._groups = {}, {}
        return groups
