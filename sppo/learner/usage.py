"""Where the time of one life went, and how busy each role was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sppo.metrics import BusyClock, Spent
from sppo.transport.broker import Registry


class Usage:
    """From `begin` on, which is called before the first step."""

    def __init__(self, broker: Registry) -> None:
        self._broker = broker
        self.begin(0)

    def begin(self, n: int) -> None:
        """Count from here, where `n` optimizer steps were taken."""
        self._n = n
        self._spent, self._clock = Spent(), BusyClock()
        self._before = self._role_seconds()

    def on(self, kind: str) -> AbstractContextManager[Spent.Piece]:
        """Count what happens inside as this kind of work."""
        return self._spent.on(kind)

    @contextmanager
    def working(self, kind: str) -> Iterator[None]:
        """The same, for what keeps the learner itself busy."""
        with self._clock.work(), self._spent.on(kind):
            yield

    def by_step(self, n: int) -> dict[str, float]:
        """Seconds a step by kind of work."""
        return self._spent.by_step(n - self._n)

    def shares(self) -> dict[str, float]:
        """Busy share of each role; members of one role are averaged."""
        shares: dict[str, list[float]] = {
            "learner": [self._clock.busy_s / max(1e-9, self._clock.ready_s)]
        }
        for (role, life), (busy, ready) in self._role_seconds().items():
            busy_before, ready_before = self._before.get((role, life), (0.0, 0.0))
            if role != "learner" and ready > ready_before:
                shares.setdefault(role, []).append((busy - busy_before) / (ready - ready_before))
        return {role: sum(values) / len(values) for role, values in shares.items()}

    def _role_seconds(self) -> dict[tuple[str, str], tuple[float, float]]:
        """(busy, ready) seconds of every live member so far, by role and life."""
        return {(m.role, m.life): (m.busy_s, m.ready_s) for m in self._broker.members()}
