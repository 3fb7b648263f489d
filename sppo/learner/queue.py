"""The learner's side of the broker: tickets out, groups in, settlement after a durable checkpoint.

What was claimed is in one of three places until it is settled: ready (not used yet), used (in an
optimizer step that no checkpoint covers yet), or recorded (evaluations, settled at once).

The ledger is the truth. Whenever a life begins, or the broker has restarted and may have lost its
newest writes, the broker is made to agree with it.
"""

from __future__ import annotations

import logging

from sppo.config import BrokerConfig
from sppo.errors import BadFrame
from sppo.faults import point
from sppo.learner.frames import Frames
from sppo.learner.held import Held
from sppo.learner.held_out import HeldOut
from sppo.learner.ledger import Ledger
from sppo.learner.refusals import DeadLetters
from sppo.learner.spool import Spool
from sppo.tasks.tickets import TicketFactory, training_index, training_uid
from sppo.transport import codec
from sppo.transport.broker import Broker
from sppo.types import Group, QueueEntry

log = logging.getLogger(__name__)

CLAIM = 256


class GroupQueue:
    """Tickets and groups of one life of the learner."""

    def __init__(
        self, broker: Broker, tickets: TicketFactory, ledger: Ledger, spool: Spool, *,
        limits: BrokerConfig,
        vocabulary: int = 2**31, dead: DeadLetters | None = None,
    ) -> None:  # fmt: skip
        self._broker = broker
        self._tickets = tickets
        self._ledger = ledger
        self._spool = spool
        self._frames = Frames(broker.tickets, spool, vocabulary)
        self._held = Held(broker.tickets, spool, limits)
        self._ready: dict[int, Group] = {}
        self._boot = ""
        self._n = 0
        self.held_out = HeldOut(broker.tickets, tickets, self._frames)
        self.dead = dead or DeadLetters()

    def reconcile(self, n: int) -> None:
        """Make the broker agree with the ledger: what the checkpoint covers is ended, what it lacks
        is issued again.
        """
        self._n = n
        begins = not self._boot
        self._boot = self._broker.ping()
        self._note_dead(said=begins)
        self._recall()
        known = [*self._broker.tickets.pending(), *self._broker.tickets.claim(CLAIM, 0)]
        self._held.keep_only(known)
        self._take(known)
        point("learner.reconcile.read")
        wanted = {training_uid(i): i for i in self._ledger.open() if i not in self._ready}
        missing = self.held_out.open()
        claimed = self._held.uids()
        stale = self._broker.tickets.open_tickets() - claimed - wanted.keys() - missing.keys()
        self._broker.tickets.withdraw(stale)
        self._broker.tickets.issue(
            [*(self._tickets.training(i, n) for i in wanted.values()), *missing.values()]
        )
        point("learner.reconciled")
        if wanted:
            log.info("%d open tickets issued again", len(wanted))

    def _recall(self) -> None:
        """Groups that an earlier life moved to the disk and that its checkpoint does not cover."""
        for uid, frame in self._spool.frames():
            index = training_index(uid)
            open_ = index < self._ledger.next_index and not self._ledger.settled(uid)
            if not open_ or index in self._ready:
                continue
            try:
                self._ready[index] = codec.decode_group(frame)
            except BadFrame as error:
                log.warning("the spooled group of ticket %s is made again: %s", uid, error)

    def admit(self, cap: int, n: int) -> None:
        """Issue tickets until `cap` are outstanding."""
        self._n = n
        fresh = []
        while self._ledger.outstanding < cap:
            fresh.append(self._tickets.training(self._ledger.issue(), n))
        if fresh:
            point("learner.admit.numbered")
        results = self._broker.tickets.issue(fresh)
        if fresh:
            point("learner.admit.issued")
        for ticket, result in zip(fresh, results, strict=True):
            if result == "dead":
                self._ledger.give_up(ticket.uid)

    def receive(self, wait_s: float) -> int:
        """Take in what has arrived, waiting up to `wait_s` for the first. Returns how many groups
        came.
        """
        if self._broker.ping() != self._boot:
            log.warning("the broker has restarted; making it agree with what was trained")
            self.reconcile(self._n)
        entries = self._broker.tickets.claim(CLAIM, wait_s)
        if entries:
            point("learner.claimed")
        else:
            self._note_dead()
            # A claim whose reply was lost stays pending for us: it is never offered as new again.
            entries = [e for e in self._broker.tickets.pending() if e not in self._held]
        self._take(entries)
        self._held.spill()
        return len(entries)

    def batch(self, count: int) -> list[Group] | None:
        """The `count` oldest groups of issued tickets, or None if fewer are ready."""
        usable = sorted(i for i in self._ready if i < self._ledger.next_index)[:count]
        if len(usable) < count:
            return None
        return [self._ready[i] for i in usable]

    def waiting(self) -> list[Group]:
        """Groups that have come in and are in no optimizer step yet, the batch at hand among
        them.
        """
        return list(self._ready.values())

    def use(self, groups: list[Group]) -> None:
        """These groups have entered an optimizer step."""
        for group in groups:
            del self._ready[training_index(group.uid)]
        self._ledger.use([g.uid for g in groups])
        point("learner.used")

    def settle(self) -> None:
        """A durable checkpoint covers everything used so far."""
        self._held.settle(self._ledger.settled)
        point("learner.settled")

    def finish_evaluation(self) -> list[Group] | None:
        """The evaluated groups once all have come or are dead letters; None before that."""
        self._note_dead()
        return self.held_out.finish(self.dead)

    def describe(self) -> str:
        """Where everything is, for a message about waiting."""
        depths = ", ".join(f"{k} {v}" for k, v in self._broker.depths().items())
        return (
            f"{len(self._ready)} groups ready, {self._ledger.outstanding} tickets outstanding; "
            f"broker: {depths}"
        )

    def _take(self, entries: list[QueueEntry]) -> None:
        for entry in entries:
            if entry in self._held:
                continue
            if entry.stream == "train":
                self._take_training(entry)
            elif self.held_out.take(entry):
                self.dead.scored()

    def _take_training(self, entry: QueueEntry) -> None:
        index = training_index(entry.uid)
        used = index < self._ledger.next_index and self._ledger.settled(entry.uid)
        if used or index in self._ready:
            # Covered by the checkpoint this life began with; or made twice, because the broker lost
            # its newest writes.
            self._broker.tickets.settle([entry])
            return
        group = self._frames.read(entry)
        if group is not None:
            self._held.add(entry)
            self._ready[index] = group
            self.dead.scored()

    def _note_dead(self, *, said: bool = False) -> None:
        """Give up what the broker has given up. Raises ScorerError, see `DeadLetters.note`."""
        for letter in self.dead.note(self._broker.tickets.dead_letters(), said=said):
            log.warning("ticket %s is a dead letter: %s", letter.uid, letter.reason)
            issued = (
                letter.stream == "train" and training_index(letter.uid) < self._ledger.next_index
            )
            if issued and not self._ledger.settled(letter.uid):
                self._ledger.give_up(letter.uid)
                # It may have been made again and given up after lost writes.
                self._ready.pop(training_index(letter.uid), None)
