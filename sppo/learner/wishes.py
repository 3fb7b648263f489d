"""What a person asks for while the run goes on (`sppo.asked`), done between two batches.

While the run is paused the learner lives on: it beats, acknowledges checkpoints, takes in what
generators had begun, brings newcomers to the published weights, and does what else is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sppo import asked
from sppo.learner.evaluation import Evaluation
from sppo.learner.fleet import Fleet
from sppo.learner.lineage import Lineage
from sppo.learner.pulse import Pulse
from sppo.learner.queue import GroupQueue
from sppo.learner.records import Records
from sppo.learner.saving import Saving
from sppo.learner.stops import Stops

log = logging.getLogger(__name__)

WAIT_S = 0.5


class Wishes:
    """Those of one life."""

    def __init__(
        self, run_dir: Path, lineage: Lineage, queue: GroupQueue, fleet: Fleet,
        evaluation: Evaluation, saving: Saving, records: Records, stops: Stops, pulse: Pulse,
    ) -> None:  # fmt: skip
        self._run_dir = run_dir
        self._lineage = lineage
        self._queue = queue
        self._fleet = fleet
        self._evaluation = evaluation
        self._saving = saving
        self._records = records
        self._stops = stops
        self._pulse = pulse
        self._stuck: set[str] = set()
        """Wishes that were done, and could not be taken away."""
        asked.begin(run_dir)

    def heed(self) -> None:
        """Do what is asked for now, and stand still as long as a pause is. Raises Stopped, and
        SppoError as an evaluation does.
        """
        self._pulse.in_hand = self._lineage.ledger.outstanding
        standing = self._serve()
        if asked.PAUSE not in standing:
            return
        n = self._lineage.n
        log.info("paused after step %d", n)
        self._records.phase("paused")
        with self._records.paused():
            while asked.PAUSE in standing:
                self._stops.check()
                self._saving.settle()
                if not self._queue.receive(WAIT_S):
                    self._fleet.meet_newcomers(self._lineage)
                if set(standing) > {asked.PAUSE}:
                    self._records.phase("paused")
                standing = self._serve()
        log.info("resumed after step %d", n)
        self._records.phase("training")

    def drop(self) -> None:
        """The run is over, or was asked to stop: what stands is not for its next life."""
        for wish in asked.standing(self._run_dir):
            self._done(wish)

    def _serve(self) -> list[str]:
        """What was asked for."""
        standing = [w for w in asked.standing(self._run_dir) if w not in self._stuck]
        if asked.EVALUATE in standing:
            with self._once(asked.EVALUATE):
                self._evaluation.run(self._lineage)
        if asked.CHECKPOINT in standing:
            with self._once(asked.CHECKPOINT):
                self._saving.begin()
        return standing

    @contextmanager
    def _once(self, wish: str) -> Iterator[None]:
        """What fails of it ends this life, not the next ones too."""
        try:
            yield
        finally:
            self._done(wish)

    def _done(self, wish: str) -> None:
        """A wish that cannot be taken away, as in a folder of another user, ends no run."""
        try:
            asked.withdraw(self._run_dir, wish)
        except OSError as error:
            self._stuck.add(wish)
            log.warning("%s: asked for no more in this life of the learner, until the file can be "
                        "removed: %s", wish, error)  # fmt: skip
