"""Scorers that wait, as their processes import them: the standard library alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

JUDGE_S = 2.5
AT_A_TIME = 16


async def waits(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """A judge elsewhere that takes 100 ms."""
    await asyncio.sleep(0.1)
    return [float(text) for text in completions]


class Judge:
    """Takes more than two leases for each group, and so many at a time; says how often it was
    asked about a group, and about how many beside it.
    """

    async def setup(self) -> None:
        self._turn = asyncio.Semaphore(AT_A_TIME)
        self._asked: Counter[str] = Counter()
        self._beside = 0

    async def score(self, request: Any) -> dict[str, Any]:
        self._asked[request.uid] += 1
        async with self._turn:
            self._beside += 1
            await asyncio.sleep(JUDGE_S)
            said = {"asked": self._asked[request.uid], "beside": self._beside}
            self._beside -= 1
        rewards = [float(int(text) % 2 == 0) for text in request.completions]
        return {"rewards": rewards, "details": [said] * len(rewards)}
