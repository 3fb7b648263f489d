"""One call until it is answered: its place among those at a time, tries after errors, and waiting
for as long as the judge says "later".

All calls wait together: one that is told to come again after a minute keeps the others from asking
meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import Any

from sppo.errors import ScorerError
from sppo.scorer.judge.endpoint import Endpoint, Failed, Later, Reply, Unreachable

log = logging.getLogger(__name__)

TRIES = 4
FIRST_S = 1.0
"""Pause after the first error; each that follows is twice as long."""
UNMET_S = 0.5
"""Between tries to reach a judge that has never answered."""
LONGEST_S = 60.0
SAY_S = 60.0
"""How often it is said that everyone waits."""


class Patient:
    """Calls of an endpoint, `at_once` at a time.

    reply = await patient.complete(body)
    """

    def __init__(self, endpoint: Endpoint, *, at_once: int) -> None:
        self._endpoint = endpoint
        self._places = asyncio.Semaphore(at_once)
        self._not_before = 0.0
        self._in_a_row = 0
        """Times that the judge was busy or away since it last answered."""
        self._said_at = 0.0
        self._met = False
        """Whether it has ever answered."""
        self.waits = 0
        """Times that a call was told to come later."""
        self.retries = 0
        """Times that a call was made again after an error."""

    async def complete(self, body: Mapping[str, Any]) -> Reply:
        """See `Endpoint.complete`; waits while the judge is busy, or away after it was there.

        Raises ScorerError once `TRIES` calls have failed; the endpoint's NotThis and ScorerErrors.
        """
        failures: list[str] = []
        while True:
            try:
                async with self._places:
                    await self._turn()
                    reply = await self._endpoint.complete(body)
                self._met, self._in_a_row = True, 0
                return reply
            except Later as later:
                self._met = True
                self._hold(str(later), later.wait_s)
            except Unreachable as error:
                if not self._met:
                    failures.append(f"{error}; is the judge running?")
                self._hold(str(error), UNMET_S if not self._met else None)
            except Failed as error:
                failures.append(str(error))
                self.retries += len(failures) < TRIES
                await asyncio.sleep(_pause_s(len(failures) - 1))
            if len(failures) >= TRIES:
                raise ScorerError("; ".join(dict.fromkeys(failures)))

    async def _turn(self) -> None:
        """Until the judge may be asked."""
        while (left_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left_s)

    def _hold(self, why: str, wait_s: float | None) -> None:
        """Nobody asks for so long; without a time of the judge's own, longer with each time."""
        self.waits += 1
        now = time.monotonic()
        if wait_s is None and now < self._not_before:
            return  # it is known already
        pause_s = _pause_s(self._in_a_row) if wait_s is None else wait_s
        self._in_a_row += 1
        self._not_before = max(self._not_before, now + pause_s)
        if now - self._said_at > SAY_S:
            self._said_at = now
            log.warning("all calls wait %.0f s: %s", pause_s, why)


def _pause_s(before: int) -> float:
    """Of a random length, so that not everyone comes back at the same moment."""
    return min(LONGEST_S, FIRST_S * 2.0**before) * random.uniform(0.5, 1.0)
