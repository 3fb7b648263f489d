"""Whether a role that died is started again, and how long to wait before that. The embedded broker
counts as a role.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

from sppo.errors import (
    BrokerError,
    RoleDiedError,
    RoleFailedError,
    ScorerError,
    SppoError,
    WeightSyncError,
)
from sppo.transport.broker import LEARNER

WINDOW_S = 600.0
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 8.0

MENDABLE = (RoleDiedError, WeightSyncError, ScorerError)
"""Ends that another life may be spared: a process that was killed or crashed, a sync or a service
that failed.
"""


class Restarts:
    """At most `cap` restarts of one role within `WINDOW_S`, each after twice the delay of the one
    before.
    """

    def __init__(self, cap: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._cap = cap
        self._clock = clock
        self._seen: set[str] = set()
        self._failure = ""
        """The last error of a learner that has taken no step since."""
        self._times: dict[str, list[float]] = defaultdict(list)
        self.counts: dict[str, int] = defaultdict(int)
        """Restarts of each role so far."""

    def saw(self, name: str) -> None:
        """This role has been up and working. One that never was has a mistake to show, which a
        restart would repeat.
        """
        self._seen.add(name)

    def stepped(self) -> None:
        """The learner has taken a step."""
        self._failure = ""

    def delay_s(self, name: str, error: SppoError) -> float:
        """Seconds to wait before starting the role again.

        Raises the error where that is of no use: one that is the user's to mend; the same error in
        two lives of the learner without a step in between; with the count in its message once the
        cap is reached.
        """
        # A learner that ends by itself has given up on something; only one that was killed or
        # crashed comes back.
        mendable = {"learner": (RoleDiedError,), "broker": (BrokerError,)}.get(
            name.split("-")[0], MENDABLE
        )
        if name not in self._seen or not isinstance(error, mendable):
            raise error
        if name == LEARNER and isinstance(error, RoleFailedError):
            before, self._failure = self._failure, str(error).splitlines()[0]
            if before == self._failure:
                raise RoleFailedError(f"the same error ended two lives of {name}: {error}")
        now = self._clock()
        recent = [t for t in self._times[name] if now - t < WINDOW_S]
        if len(recent) >= self._cap:
            kind = BrokerError if isinstance(error, BrokerError) else RoleDiedError
            raise kind(
                f"{name} died {self._cap + 1} times within {WINDOW_S / 60:.0f} minutes "
                f"(launch.max_restarts = "
                f"{self._cap}); the last time: {error}"
            )
        self._times[name] = [*recent, now]
        self.counts[name] += 1
        return min(FIRST_DELAY_S * 2.0 ** len(recent), LONGEST_DELAY_S)
