"""The learner's loop.

Consumes scored groups; waits for a whole batch of them; unblocks generators with tickets and
weights.

    admit tickets ── wait for a batch ── train ── publish ── (checkpoint, evaluate) ── again

Tickets of the next batches are out while this one trains (`learner.lookahead_steps`), so neither
side waits for the other's slowest piece of work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sppo.faults import point
from sppo.learner.batches import Batches
from sppo.learner.evaluation import Evaluation
from sppo.learner.fleet import Fleet
from sppo.learner.lineage import Lineage
from sppo.learner.notes import Notes
from sppo.learner.parity import Parity
from sppo.learner.queue import GroupQueue
from sppo.learner.records import Records
from sppo.learner.saving import Saving
from sppo.learner.schedule import Schedule
from sppo.learner.skips import Skips
from sppo.learner.stops import Stops
from sppo.learner.trainer import Trainer
from sppo.learner.wishes import Wishes
from sppo.types import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """One life of the learner; `sppo.learner.assemble` makes it."""

    schedule: Schedule
    lineage: Lineage
    trainer: Trainer
    queue: GroupQueue
    batches: Batches
    skips: Skips
    fleet: Fleet
    evaluation: Evaluation
    parity: Parity
    records: Records
    notes: Notes
    saving: Saving
    stops: Stops
    wishes: Wishes

    def run(self) -> None:
        """To the last evaluation. Raises Stopped if asked to stop, SppoError for what failed."""
        self.begin()
        while not self.schedule.over(self.lineage.n):
            self.batch()
        self.wishes.heed()  # what was asked for in the last batch
        self.evaluation.run(self.lineage)

    def begin(self) -> None:
        """Before the first step: generators ready, weights published, where we begin evaluated."""
        lineage = self.lineage
        self.fleet.await_members()
        if over := self.schedule.over(lineage.n):
            lineage.publish()  # `steps` was lowered to the checkpoint's: no batch will
        self.fleet.publish(lineage)
        self.queue.reconcile(lineage.published.n)
        self.records.usage.begin(lineage.n)
        if over:
            return  # only the last evaluation, or the export, was missing
        if lineage.n == 0:
            self.evaluation.run(lineage)
        self.batches.admit()
        self.records.phase("waiting for the first batch")
        self.parity.check_first(self.batches.next(), lineage)
        self.records.usage.begin(lineage.n)
        self.records.phase("training")

    def batch(self) -> None:
        """One batch, from its groups to what follows from the steps taken."""
        self.wishes.heed()
        lineage, before = self.lineage, self.lineage.n
        with self.records.usage.on("wait") as waiting:
            groups = self.batches.next()
        self.stops.check()
        self.saving.settle()
        self.parity.finish_probe(self.queue.waiting(), lineage)
        steps = self.train(groups, waiting.seconds)
        point("learner.step.taken")
        lost = self.skips.sort_out(steps)
        self.queue.use([group for group in groups if group.uid not in lost])
        self.queue.bury(lost)
        lineage.advance(steps[-1]["step"])
        self.notes.steps(steps, groups)
        if self.schedule.renews_reference(before, lineage.n):
            lineage.renew_reference()
        with self.records.batch(steps, lineage, self.parity.probe):
            if self.schedule.publishes(before, lineage.n):
                lineage.publish()
                steps[-1]["sync_s"] = self.fleet.publish(lineage)
        point("learner.recorded")
        self.skips.check()
        self.parity.judge(self.trainer.gaps, lineage.n)
        self.batches.admit()
        if self.schedule.evaluates(before, lineage.n):
            self.evaluation.run(lineage)
        if self.schedule.probes(before, lineage.n, doubtful=self.parity.doubtful):
            self.parity.start_probe(lineage)
        if self.schedule.saves(before, lineage.n):
            self.saving.begin()

    def train(self, groups: list[Group], waited_s: float) -> list[dict[str, Any]]:
        """The metrics of each optimizer step of one batch."""
        self.notes.batch(groups, self.lineage.version, self.lineage.published)
        with self.fleet.asleep("training"), self.records.usage.working("train"):
            taken = self.trainer.train(groups, self.lineage.version, self.lineage.published)
            steps = [step | {"wait_s": 0.0, "sync_s": 0.0} for step in taken]
        steps[0]["wait_s"] = waited_s
        return steps
