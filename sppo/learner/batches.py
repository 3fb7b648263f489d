"""Tickets out, and whole batches of groups in: what the learner waits for."""

from __future__ import annotations

import time

from sppo.config import RunConfig
from sppo.errors import SppoError
from sppo.learner.fleet import Fleet
from sppo.learner.lineage import Lineage
from sppo.learner.queue import GroupQueue
from sppo.learner.records import Records
from sppo.learner.schedule import Schedule
from sppo.learner.stops import Stops
from sppo.types import Group
from sppo.watch import steps

WAIT_S = 1.0  # of one look at the broker; what arrives meanwhile is taken in at once


class Batches:
    """Those of one life."""

    def __init__(
        self, config: RunConfig, lineage: Lineage, queue: GroupQueue, fleet: Fleet,
        records: Records, stops: Stops,
    ) -> None:  # fmt: skip
        self._schedule = Schedule.of(config)
        self._most = config.learner.most_groups
        self._extra = 0
        """Groups that the batch at hand wants beyond `learner.groups_per_step`."""
        self._max_staleness = config.learner.max_staleness
        self._timeout_s = config.learner.batch_timeout_s
        self._lineage = lineage
        self._queue = queue
        self._fleet = fleet
        self._records = records
        self._stops = stops

    def admit(self) -> None:
        """Tickets for the batch in use and the next ones."""
        cap = self._schedule.outstanding(self._lineage.n) + self._extra
        self._queue.admit(cap, self._lineage.published.n)

    def next(self) -> list[Group]:
        """The oldest groups; the same until they are used. Raises SppoError when nothing arrives
        for `learner.batch_timeout_s`, Stopped when the run asks to stop.
        """
        deadline = (begun := time.monotonic()) + self._timeout_s
        while (groups := self._ready()) is None:
            self._stops.check()
            self._records.waiting(begun, len(self._queue.waiting()), self._extra)
            if self._queue.receive(WAIT_S) or self._fleet.meet_newcomers(self._lineage):
                deadline = time.monotonic() + self._timeout_s
            elif time.monotonic() > deadline:
                raise SppoError(
                    f"no group arrived for {self._timeout_s:.0f} s (learner.batch_timeout_s); "
                    f"live generators: {self._fleet.names()}; {self._queue.describe()}"
                )
            else:
                self.admit()  # dead letters make room
        return groups

    def _ready(self) -> list[Group] | None:
        """The oldest groups, if there are enough; those too old to be trained are made again."""
        groups = self._filled()
        if not groups or not self._max_staleness:
            return groups
        version, published = self._lineage.version, self._lineage.published
        stale = self._schedule.stale(groups, version, published, self._max_staleness)
        self._records.judged("staleness", steps.stale(version.n, len(stale), self._max_staleness))
        if not stale:
            return groups
        self._lineage.ledger.again += len(stale)
        self._queue.again(stale, published.n)
        return None

    def _filled(self) -> list[Group] | None:
        """The oldest groups, so many that enough of them have a signal or that the limit of
        `learner.refill` is reached, in whole mini-batches; None while they have not come.
        """
        size, unit = self._schedule.groups_per_step, self._schedule.mini_batches
        count = size
        while (groups := self._queue.batch(count)) is not None:
            lacking = size - sum(group.has_signal for group in groups)
            if lacking <= 0 or count >= self._most:
                self._extra = 0
                return groups
            count = min(self._most, count + -(-lacking // unit) * unit)
        if count - size > self._extra:
            self._extra = count - size
            self.admit()
        return None
