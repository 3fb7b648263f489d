"""Held-out questions, answered greedily at the published weights: no sync happens meanwhile.

A scorer that gives rewards says how many answers are right. One that compares has nobody to compare
a single answer with: it is asked how often the answer wins against the base model's, which the
evaluation at step 0 has kept.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from sppo.config import RunConfig
from sppo.errors import ScorerError, SppoError
from sppo.evaluation.records import describe, of_groups
from sppo.learner.base_answers import BaseAnswers
from sppo.learner.fleet import Fleet
from sppo.learner.lineage import Lineage
from sppo.learner.notes import Notes
from sppo.learner.queue import GroupQueue
from sppo.learner.records import Records
from sppo.learner.stops import Stops
from sppo.types import Group

log = logging.getLogger(__name__)

WAIT_S = 0.5


class Evaluation:
    """Asks and records."""

    def __init__(
        self, config: RunConfig, queue: GroupQueue, fleet: Fleet, records: Records,
        notes: Notes, base: BaseAnswers, stops: Stops,
    ) -> None:  # fmt: skip
        self._asked = config.task.evaluates
        self._timeout_s = config.learner.batch_timeout_s
        self._queue = queue
        self._fleet = fleet
        self._records = records
        self._notes = notes
        self._base = base
        self._stops = stops

    def run(self, lineage: Lineage) -> None:
        """Unless it was done at these weights, or there is nothing to ask. Raises SppoError when
        no group comes, ScorerError when nothing is scored.
        """
        if not self._asked or lineage.evaluated:
            return
        with self._records.usage.on("evaluate"):
            self._records.phase("evaluating")
            n = lineage.published.n
            first = not lineage.evaluations and n == 0
            compares = not first and lineage.evaluations[0].get("win_rate") is not None
            uids = self._queue.held_out.start(
                f"{lineage.version.epoch[:8]}-{n}", n, paired=first,
                against=self._base.read() if compares else None,
            )  # fmt: skip
            groups = self._await(lineage)
            record = self._record(n, uids, groups)
            if first and record["win_rate"] is not None:
                self._base.keep(groups)
            self._notes.evaluation(n, groups)
        lineage.evaluations.append(record)
        self._records.event("eval", record=record)
        log.info("evaluation: %s", describe(record))
        self._records.phase("training")

    def _await(self, lineage: Lineage) -> list[Group]:
        n = lineage.published.n
        deadline = time.monotonic() + self._timeout_s
        while (groups := self._queue.finish_evaluation()) is None:
            self._stops.check()
            if time.monotonic() > deadline:
                raise SppoError(
                    f"the evaluation of step {n} got no group for {self._timeout_s:.0f} s "
                    f"(learner.batch_timeout_s); {self._queue.describe()}"
                )
            if self._queue.receive(WAIT_S) or self._fleet.meet_newcomers(lineage):
                deadline = time.monotonic() + self._timeout_s
        return groups

    def _record(self, n: int, uids: list[str], groups: list[Group]) -> dict[str, Any]:
        if not groups:
            raise ScorerError(
                f"every ticket of the evaluation of step {n} was given up; the last, "
                f"{self._queue.dead.last}"
            )
        record = of_groups(n, groups, dead=len(uids) - len(groups))
        if record is None:
            raise ScorerError(f"the scorer compared no answer of the evaluation of step {n}")
        return record
