"""The scorers that `sppo-cli bench scorer` has served: one that waits, one that computes.

Imported by the scorer's own process, so it is light.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

WAIT_S = 0.1
ROUNDS = 100_000
"""Of hashing for one group: some 40 ms, as `math` may take for eight verdicts."""


async def waits(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """The row's number and the completion's place, after a while."""
    await asyncio.sleep(WAIT_S)
    return own(data["number"], len(completions))


def computes(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """The same, after work of a fixed size in plain Python."""
    word = question.encode()
    for _ in range(ROUNDS):
        word = hashlib.md5(word).digest()
    return own(data["number"], len(completions))


def own(number: int, completions: int) -> list[float]:
    """What belongs to this group alone."""
    return [number + place / 64 for place in range(completions)]
