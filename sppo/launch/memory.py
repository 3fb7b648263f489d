"""How much memory a process and all that it has started take together."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

SAMPLE_S = 15.0
GROWTH = 1.01


class Peak:
    """The largest sum of proportional set sizes so far: a page that n processes share counts 1/n
    for each.

    Resident sizes are cheap to read and tell when there may be a new peak; only then are the pages
    looked at.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = 0.0
        self._resident = 0
        self.nbytes = 0

    def sample(self) -> None:
        """Look, at most every `SAMPLE_S`."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + SAMPLE_S
        family = _family()
        resident = sum(_read(p, lambda p: p.memory_info().rss) for p in family)
        if resident > self._resident * GROWTH:
            self._resident = resident
            self.nbytes = max(
                self.nbytes, sum(_read(p, lambda p: p.memory_full_info().pss) for p in family)
            )


def _family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _read(process: psutil.Process, what: Callable[[psutil.Process], int]) -> int:
    try:
        return what(process)
    except psutil.Error:  # it has just ended
        return 0
