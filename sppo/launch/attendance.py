"""RUN/roles.jsonl: who was there and how busy, every few seconds: {"time", "members": {name:
{"role", "life", "busy_s", "ready_s", "tokens", "in_hand", "scoring"}}}.

Seconds and tokens only grow in one life, so that lines that are dropped cost detail alone: the file
stays below `MOST_BYTES`, by dropping every other line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from sppo.metrics import JsonLines
from sppo.types import Member

EVERY_S = 10.0
MOST_BYTES = 2 << 20
KEPT = ("role", "life", "busy_s", "ready_s", "tokens", "in_hand", "scoring")


class Attendance:
    """Of one `up`; a later one goes on with the file."""

    def __init__(
        self, run_dir: Path, *, clock: Callable[[], float] = time.time, most_bytes: int = MOST_BYTES
    ) -> None:
        self._file = JsonLines(run_dir / "roles.jsonl")
        self._clock = clock
        self._most_bytes = most_bytes
        self._written_at = -EVERY_S

    def saw(self, members: Iterable[Member]) -> None:
        """These are there now; written down once every `EVERY_S`."""
        now = self._clock()
        if abs(now - self._written_at) < EVERY_S:
            return
        self._written_at = now
        kept = {m.name: {key: _plain(getattr(m, key)) for key in KEPT} for m in members}
        self._file.append({"time": round(now, 3), "members": kept})
        if self._file.path.stat().st_size > self._most_bytes:
            flags = iter(range(1 << 62))
            self._file.keep(lambda _: next(flags) % 2 == 0)


def _plain(value: str | float) -> str | float:
    return round(value, 3) if isinstance(value, float) else value
