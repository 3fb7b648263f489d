"""The hold of one learner on its run: its steps fail once another learner has taken the run over.

A server that lost its newest writes does not know of this learner either. Then it takes the run
back, unless another one is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sppo.errors import FencedError
from sppo.transport.client import Connection

READERS = "learner"
"""The consumer group of the queue."""

R = TypeVar("R")
log = logging.getLogger(__name__)


class Fence:
    """The learner's epoch, and the one that it replaced."""

    def __init__(self, server: Connection, retaken: Callable[[], None]) -> None:
        """`retaken` is called when the run was taken back from a server that had lost writes."""
        self._server = server
        self._retaken = retaken
        self._epoch = self._replaced = ""

    def open(self, epoch: str) -> None:
        """Take over the run."""
        self._replaced = self._server.step("open", mine=epoch, readers=READERS).decode()
        self._epoch = epoch

    def step(self, name: str, **given: Any) -> Any:
        """A step of the learner. Raises FencedError if another one has the run."""
        return self._held(lambda: self._server.step(name, mine=self._epoch, **given))

    def steps(self, name: str, calls: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The same step for many in one round trip. Raises FencedError as `step`."""
        mine = [{"mine": self._epoch, **given} for given in calls]
        return self._held(lambda: self._server.steps(name, mine))

    def retake(self) -> bool:
        """Whether the run is this learner's all the same, on a server that lost its newest
        writes.
        """
        again = bool(
            self._server.step("reopen", mine=self._epoch, replaced=self._replaced, readers=READERS)
        )
        if again:
            log.warning(
                "the broker had lost its newest writes; this learner has taken the run back"
            )
            self._retaken()
        return again

    def _held(self, run: Callable[[], R]) -> R:
        try:
            return run()
        except FencedError:
            if not (self._epoch and self.retake()):
                raise
            return run()
