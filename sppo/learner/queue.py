"""The learner's side of the broker: tickets out, groups in, settlement after a durable checkpoint.

What was claimed is in one of three places until it is settled: ready (not used yet), used (in an optimizer step that no
checkpoint covers yet), or recorded (evaluations, settled at once).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sppo.errors import BadFrame
from sppo.learner.ledger import Ledger
from sppo.tasks.tickets import TicketFactory, training_index, training_uid
from sppo.transport import codec
from sppo.transport.broker import Broker
from sppo.types import Group, QueueEntry

log = logging.getLogger(__name__)

CLAIM = 256


class GroupQueue:
    """Tickets and groups of one life of the learner."""

    def __init__(self, broker: Broker, tickets: TicketFactory, ledger: Ledger) -> None:
        self._broker = broker
        self._tickets = tickets
        self._ledger = ledger
        self._held: set[str] = set()
        self._ready: dict[int, tuple[QueueEntry, Group]] = {}
        self._used: list[QueueEntry] = []
        self._known_dead: set[str] = set()
        self._evaluations: dict[str, Group | None] = {}

    def reconcile(self, n: int) -> None:
        """Make the broker agree with the ledger: what the checkpoint covers is ended, what it lacks is issued again."""
        self._note_dead()
        self._take(self._broker.pending())
        self._take(self._broker.claim(CLAIM, 0))
        queued = {entry.uid for entry, _ in self._ready.values()}
        wanted = {training_uid(i) for i in self._ledger.open()}
        self._broker.withdraw(self._broker.open_tickets() - queued - wanted)
        again = [self._tickets.training(i, n) for i in self._ledger.open() if training_uid(i) not in queued]
        self._broker.issue(again)
        if again:
            log.info("%d open tickets issued again", len(again))

    def admit(self, cap: int, n: int) -> None:
        """Issue tickets until `cap` are outstanding."""
        fresh = []
        while self._ledger.outstanding < cap:
            fresh.append(self._tickets.training(self._ledger.issue(), n))
        results = self._broker.issue(fresh)
        for ticket, result in zip(fresh, results, strict=True):
            if result == "dead":
                self._ledger.give_up(ticket.uid)

    def receive(self, wait_s: float) -> int:
        """Take in what has arrived, waiting up to `wait_s` for the first. Returns how many groups came."""
        entries = self._broker.claim(CLAIM, wait_s)
        if not entries:
            self._note_dead()
            # A claim whose reply was lost stays pending for us: it is never offered as new again.
            entries = [e for e in self._broker.pending() if e.entry_id not in self._held]
        self._take(entries)
        return len(entries)

    def batch(self, count: int) -> list[Group] | None:
        """The `count` oldest groups of issued tickets, or None if fewer are ready."""
        usable = sorted(i for i in self._ready if i < self._ledger.next_index)[:count]
        if len(usable) < count:
            return None
        return [self._ready[i][1] for i in usable]

    def waiting(self) -> list[Group]:
        """Groups that have come in and are in no optimizer step yet, the batch at hand among them."""
        return [group for _, group in self._ready.values()]

    def use(self, groups: list[Group]) -> None:
        """These groups have entered an optimizer step."""
        for group in groups:
            entry, _ = self._ready.pop(training_index(group.uid))
            self._used.append(entry)
        self._ledger.use([g.uid for g in groups])

    def settle(self) -> None:
        """A durable checkpoint covers everything used so far."""
        self._broker.settle(self._used)
        self._held.difference_update(e.entry_id for e in self._used)
        self._used = []

    def start_evaluation(self, name: str, n: int) -> list[str]:
        """Issue the held-out questions for version `n`; returns their uids."""
        tickets = self._tickets.evaluation(name, n)
        self._evaluations = {t.uid: None for t in tickets}
        self._broker.issue(tickets)
        return list(self._evaluations)

    def finish_evaluation(self) -> list[Group] | None:
        """The evaluated groups once all have come or are dead letters; None before that."""
        self._note_dead()
        expected = {uid: g for uid, g in self._evaluations.items() if uid not in self._known_dead}
        if any(group is None for group in expected.values()):
            return None
        return [group for group in expected.values() if group is not None]

    def describe(self) -> str:
        """Where everything is, for a message about waiting."""
        depths = ", ".join(f"{k} {v}" for k, v in self._broker.depths().items())
        return f"{len(self._ready)} groups ready, {self._ledger.outstanding} tickets outstanding; broker: {depths}"

    def _take(self, entries: list[QueueEntry]) -> None:
        for entry in entries:
            if entry.entry_id in self._held:
                continue
            keep: Callable[[QueueEntry], None] = (
                self._take_training if entry.stream == "train" else self._take_evaluation
            )
            keep(entry)

    def _take_training(self, entry: QueueEntry) -> None:
        index = training_index(entry.uid)
        if index < self._ledger.next_index and self._ledger.settled(entry.uid):
            # Covered by the checkpoint this life began with (what this life used is held, so it cannot come twice).
            self._broker.settle([entry])
            return
        group = self._decode(entry)
        if group is not None:
            self._held.add(entry.entry_id)
            self._ready[index] = (entry, group)

    def _take_evaluation(self, entry: QueueEntry) -> None:
        if entry.uid in self._evaluations:
            group = self._decode(entry)
            if group is None:
                return
            self._evaluations[entry.uid] = group
        self._broker.settle([entry])

    def _decode(self, entry: QueueEntry) -> Group | None:
        frame = self._broker.fetch(entry)
        try:
            if frame is None:
                raise BadFrame("the frame is gone from the broker")
            group = codec.decode_group(frame)
            if group.uid != entry.uid:
                raise BadFrame(f"the frame belongs to ticket {group.uid}")
        except BadFrame as error:
            log.warning("group %s of ticket %s is dropped: %s", entry.gid, entry.uid, error)
            self._broker.reject(entry, f"bad frame: {error}")
            return None
        return group

    def _note_dead(self) -> None:
        for letter in self._broker.dead_letters():
            if letter.uid in self._known_dead:
                continue
            self._known_dead.add(letter.uid)
            log.warning("ticket %s is a dead letter: %s", letter.uid, letter.reason)
            issued = letter.stream == "train" and training_index(letter.uid) < self._ledger.next_index
            if issued and not self._ledger.settled(letter.uid):
                self._ledger.give_up(letter.uid)
