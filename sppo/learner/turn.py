"""The learner's turn on a GPU that it shares with engines (`launch.take_turns`).

Waits until every engine on it has finished what it samples and sleeps; unblocks them by giving back
what torch keeps of the GPU, and the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import torch

from sppo.config import RunConfig
from sppo.learner.records import Records
from sppo.learner.stops import Stops
from sppo.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")


class Turn:
    """Nothing where no turns are taken."""

    def __init__(self, config: RunConfig, run: str, records: Records, stops: Stops) -> None:
        self._turns = Turns(run) if config.launch.take_turns else None
        self._on_gpu = config.learner.device == "cuda"
        self._records = records
        self._stops = stops

    @contextmanager
    def taken(self, phase: str) -> Iterator[None]:
        """The GPU is the learner's inside, which then says that it is in this phase. Raises Stopped
        while it waits.
        """
        if self._turns is None:
            yield
            return
        with ExitStack() as stack:
            self._records.phase("waiting for the GPU")
            with self._records.usage.on("turn"):
                stack.enter_context(self._turns.alone(self._stops.check))
            self._records.phase(phase)
            stack.callback(self._give_back)
            yield

    def within(self, phase: str, work: Callable[P, T]) -> Callable[P, T]:
        """This work, each time in a turn of its own."""

        def done(*given: P.args, **named: P.kwargs) -> T:
            with self.taken(phase):
                return work(*given, **named)

        return done if self._turns is not None else work

    def _give_back(self) -> None:
        if self._on_gpu:
            torch.cuda.empty_cache()
