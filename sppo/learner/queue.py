"""The learner's side of the broker: tickets out, groups in, settlement after a durable checkpoint.

What was claimed is in one of three places until it is settled: ready (not used yet), used (in an
optimizer step that no checkpoint covers yet), or recorded (evaluations, settled at once).

The ledger is the truth. Whenever a life begins, or the broker has restarted and may have lost its
newest writes, the broker is made to agree with it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from sppo.config import BrokerConfig
from sppo.faults import point
from sppo.learner.frames import Frames
from sppo.learner.held import Held
from sppo.learner.held_out import HeldOut
from sppo.learner.ledger import Ledger
from sppo.learner.ready import Ready
from sppo.learner.refusals import DeadLetters
from sppo.learner.spool import Spool
from sppo.tasks.tickets import TicketFactory, training_index, training_uid
from sppo.transport.broker import Broker
from sppo.types import Group, QueueEntry

log = logging.getLogger(__name__)

CLAIM = 256


class GroupQueue:
    """Tickets and groups of one life of the learner."""

    def __init__(
        self, broker: Broker, tickets: TicketFactory, ledger: Ledger, spool: Spool, *,
        limits: BrokerConfig,
        vocabulary: int = 2**31, max_reward: float = math.inf, dead: DeadLetters | None = None,
    ) -> None:  # fmt: skip
        self._broker = broker
        self._tickets = tickets
        self._ledger = ledger
        self._frames = Frames(broker.tickets, spool, vocabulary, max_reward)
        self._held = Held(broker.tickets, spool, limits)
        self._ready = Ready(broker.tickets, ledger, self._frames, self._held)
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
        self._ready.recall()
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

    def admit(self, cap: int, n: int) -> None:
        """Issue tickets until `cap` are outstanding. Those whose groups an earlier life has
        claimed need no work: it may have moved them to the disk, and the broker forgotten them.
        """
        self._n = n
        indices = []
        while self._ledger.outstanding < cap:
            indices.append(self._ledger.issue())
        fresh = [self._tickets.training(i, n) for i in indices if i not in self._ready]
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
        return self._ready.oldest(count)

    def waiting(self) -> list[Group]:
        """Groups that have come in and are in no optimizer step yet, the batch at hand among
        them.
        """
        return self._ready.all()

    def use(self, groups: list[Group]) -> None:
        """These groups have entered an optimizer step."""
        for group in groups:
            self._ready.remove(group.uid)
        self._ledger.use([g.uid for g in groups])
        point("learner.used")

    def again(self, groups: Sequence[Group], n: int) -> None:
        """Have these ready groups made again, by weights no older than those of step `n`."""
        self._let_go([group.uid for group in groups], n)

    def bury(self, reasons: Mapping[str, str]) -> None:
        """Give up the tickets of these ready groups, which could not be trained, each with its
        reason.
        """
        self._let_go(list(reasons), self._n)
        for uid, reason in reasons.items():
            self._broker.leases.fail(uid, "train", f"{uid}.trained", reason, final=True)
        if reasons:
            self.dead.scored()  # they were: no sign of a scorer that fails
            self._note_dead()

    def _let_go(self, uids: Sequence[str], n: int) -> None:
        """Forget the groups of these tickets, and issue the tickets anew."""
        if not uids:
            return
        for uid in uids:
            self._ready.remove(uid)
        self._held.settle(set(uids).__contains__)
        point("learner.again.settled")
        self._broker.tickets.issue([self._tickets.training(training_index(uid), n) for uid in uids])

    def settle(self, covered: Ledger) -> None:
        """A durable checkpoint covers what this ledger, of an earlier moment, has settled."""
        self._held.settle(covered.settled)
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
            take = self._ready.take if entry.stream == "train" else self.held_out.take
            if take(entry):
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
                self._ready.remove(letter.uid)
