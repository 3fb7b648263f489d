"""Which roles have hung: their process is there, but they give no heartbeat, or their work stands still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sppo.types import Member

SILENT_S = 3.0
"""Longest absence from the registry, which a role leaves `HEARTBEAT_TTL_S` after its last heartbeat."""


@dataclass(slots=True)
class _Seen:
    life: str
    progress: int
    moved_at: float
    alive_at: float


class Watchdog:
    """Judges by what the registry says, once a second."""

    def __init__(self, hang_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = hang_timeout_s
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._over: set[tuple[str, str]] = set()
        """(name, life) of processes that have ended: what the registry still says of them for a while is no news."""

    def hung(self, names: Iterable[str], members: Iterable[Member]) -> dict[str, str]:
        """Of the roles `names` whose processes run: those that have hung, with how that shows.

        A role is judged from its first heartbeat on: what it does before that has deadlines of its own.
        """
        now = self._clock()
        for member in members:
            if (member.name, member.life) in self._over:
                continue
            before = self._seen.get(member.name)
            if before is None or before.life != member.life or before.progress != member.progress:
                self._seen[member.name] = _Seen(member.life, member.progress, now, now)
            else:
                before.alive_at = now
        found = {}
        for name in names:
            seen = self._seen.get(name)
            if seen is None:
                continue
            if now - seen.alive_at > SILENT_S:
                found[name] = "no heartbeat"
            elif now - seen.moved_at > self._timeout:
                found[name] = f"no progress for launch.hang_timeout_s = {self._timeout:.0f} s"
        return found

    def forget(self, name: str) -> None:
        """The process of this role has ended."""
        seen = self._seen.pop(name, None)
        if seen is not None:
            self._over.add((name, seen.life))

    def excuse(self) -> None:
        """The broker was away: nobody could give a sign of life."""
        now = self._clock()
        for seen in self._seen.values():
            seen.alive_at = seen.moved_at = now
