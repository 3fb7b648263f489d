"""Which roles have hung: their process is there, but they give no heartbeat, or their work stands
still.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sppo.types import Member

SILENT_S = 3.0
"""Longest absence from the registry, which a role leaves `HEARTBEAT_TTL_S` after its last
heartbeat.
"""


@dataclass(slots=True)
class _Seen:
    life: str
    progress: int
    moved_at: float
    alive_at: float
    host: str


class Watchdog:
    """Judges by what the registry says, once a second."""

    def __init__(
        self,
        hang_timeout_s: float,
        start_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = hang_timeout_s
        self._start_timeout = start_timeout_s
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._excused_at = 0.0
        self._over: set[tuple[str, str]] = set()
        """(name, life) of processes that have ended: what the registry still says of them for a
        while is no news.
        """

    def hung(self, started_at: Mapping[str, float], members: Iterable[Member]) -> dict[str, str]:
        """Of the roles whose processes run, started at these times: those that have hung, with how
        that shows.
        """
        now = self._clock()
        for member in members:
            if (member.name, member.life) in self._over:
                continue
            before = self._seen.get(member.name)
            if before is None or before.life != member.life or before.progress != member.progress:
                self._seen[member.name] = _Seen(member.life, member.progress, now, now, member.host)
            else:
                before.alive_at = now
        found = {}
        for name, started in started_at.items():
            seen = self._seen.get(name)
            if seen is None:
                if now - max(started, self._excused_at) > self._start_timeout:
                    found[name] = (
                        f"no first heartbeat within generator.start_timeout_s = "
                        f"{self._start_timeout:.0f} s"
                    )
            elif now - seen.alive_at > SILENT_S:
                found[name] = f"no heartbeat{_of(seen.host)}"
            elif now - seen.moved_at > self._timeout:
                found[name] = f"no progress{_of(seen.host)} for {self._timeout:.0f} s"
        return found

    def still_s(self, name: str, since: float) -> float:
        """For how long this role has made no progress, from a moment of this clock on."""
        seen = self._seen.get(name)
        return self._clock() - max(since, seen.moved_at if seen else since)

    def forget(self, name: str) -> None:
        """The process of this role has ended."""
        seen = self._seen.pop(name, None)
        if seen is not None:
            self._over.add((name, seen.life))

    def excuse(self) -> None:
        """The broker was away: nobody could give a sign of life."""
        self.excuse_starts()
        now = self._clock()
        for seen in self._seen.values():
            seen.alive_at = seen.moved_at = now

    def excuse_starts(self) -> None:
        """Whoever has not come yet could not: the learner has the GPU that it waits for."""
        self._excused_at = self._clock()


def _of(host: str) -> str:
    return f" from {host}" if host else ""
