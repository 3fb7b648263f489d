"""Checkpoints while training goes on: begun, waited for where need be, settled once durable."""

from __future__ import annotations

import logging
import math
import time

from sppo.errors import SppoError
from sppo.learner.lineage import Lineage
from sppo.learner.queue import GroupQueue
from sppo.learner.records import Records
from sppo.learner.writer import RESCUE_S

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at what is waited for."""


class Saving:
    """Of one life."""

    def __init__(self, lineage: Lineage, queue: GroupQueue, records: Records) -> None:
        self._lineage = lineage
        self._queue = queue
        self._records = records

    def begin(self) -> None:
        """A checkpoint of what stands, unless there is one, or one is being written. Another one
        that is being written is waited for.
        """
        if self._lineage.saved:
            return
        began = time.monotonic()
        self.finish()
        with self._records.long_work("saving", "save"):
            self._lineage.save(began)
        self._records.phase("training")

    def settle(self, wait_s: float = 0.0) -> None:
        """Once a checkpoint is durable, what it covers is acknowledged."""
        saved = self._lineage.durable(wait_s)
        if saved is None:
            return
        writing = saved.writing
        self._queue.settle(saved.ledger)
        self._records.event(
            "checkpoint", step=writing.step, folder=writing.folder.name, nbytes=writing.nbytes,
            held_s=round(saved.held_s, 3), written_s=round(writing.seconds, 3),
        )  # fmt: skip

    def finish(self, patience_s: float = math.inf) -> None:
        """Wait for the one that is being written, however long its size takes; whoever looks on
        sees how far it is. `patience_s` is without any progress.
        """
        before, moved = -1, time.monotonic()
        with self._records.usage.on("save"):
            while (saving := self._lineage.saving) and time.monotonic() - moved < patience_s:
                written = saving.writing.written
                if written > before:
                    before, moved = written, time.monotonic()
                    self._records.saving(saving.writing)
                self.settle(LOOK_S)

    def rescue(self) -> None:
        """The life ends with an error. A checkpoint that is being written is of what was right
        before it, and is waited for as long as ranks write: one that died may have written before.
        """
        try:
            self.finish(RESCUE_S)
        except SppoError as error:
            log.error("%s", error)
        except Exception:  # what ends the life is raised after this
            log.exception("the checkpoint that was being written")
