"""Where a rank's main thread is, for whoever waits for it.

    where.at("step 5")      what it does, until it says something else
    where.come()            at each place by which all ranks come, in the same order: before a
                            collective, and before each layer, whose weights are gathered

A rank that passed fewer of these places than another is behind it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SLOW = ("keep", "save", "load", "export")
"""Orders that may take one rank long while others wait: they read or write files, or copy all that
there is.
"""


@dataclass(slots=True)
class Where:
    """Of one rank."""

    doing: str = "starting"
    patient: bool = True
    """It may rightly stand still for long: it loads, it writes, it waits for what comes."""
    passed: int = 0
    moved: float = field(default_factory=lambda: time.monotonic())

    def at(self, doing: str, *, patient: bool = False) -> None:
        """From here on."""
        self.doing, self.patient, self.moved = doing, patient, time.monotonic()

    def order(self, name: str) -> None:
        """At what rank 0 ordered."""
        self.at(f"at the order {name!r}", patient=name in SLOW)

    @contextmanager
    def slow(self, doing: str) -> Iterator[None]:
        """Inside it may stand still."""
        before = self.doing, self.patient
        self.at(doing, patient=True)
        yield
        self.at(before[0], patient=before[1])

    def come(self) -> None:
        """One place further."""
        self.passed += 1
        self.moved = time.monotonic()

    def post(self) -> dict[str, Any]:
        """For the others. `still` is in seconds: clocks of machines differ."""
        return {
            "doing": self.doing, "patient": self.patient, "passed": self.passed,
            "still": time.monotonic() - self.moved, "host": socket.gethostname(),
            "pid": os.getpid(),
        }  # fmt: skip
