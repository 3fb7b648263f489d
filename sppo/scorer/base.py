"""What a scorer is, and how one is found by name.

A scorer function takes one prompt's completions and returns a number for each:

    def score(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> Sequence[float]: ...

`scorer.name` is a name of `SCORERS` or an import string `package.module:name` of such a function.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sppo.errors import ConfigError, ScorerError
from sppo.scorer.rules import exact_match, last_number, reasoning_gym_score
from sppo.types import ScoreRequest

ScorerFunction = Callable[[str, Sequence[str], Mapping[str, Any]], Sequence[float]]

SCORERS: dict[str, ScorerFunction] = {
    "exact-match": exact_match,
    "last-number": last_number,
    "reasoning-gym": reasoning_gym_score,
}


class Scorer(Protocol):
    """Scores groups; in this process or elsewhere.

    rewards = await scorer.score(request)     # [K] floats
    await scorer.close()
    """

    async def score(self, request: ScoreRequest) -> list[float]:
        """One finite number for each completion. Raises ScorerError."""

    async def close(self) -> None:
        """Release connections."""


def find(name: str) -> ScorerFunction:
    """The scorer function of this name or import string. Raises ConfigError."""
    if name in SCORERS:
        return SCORERS[name]
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(
            f"scorer.name = {name!r}: no such scorer; there are {', '.join(SCORERS)}, "
            "or your own as package.module:name"
        )
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        # Whatever a user's module does when it is imported.
        raise ConfigError(f"scorer.name = {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ConfigError(f"scorer.name = {name!r} is not a function")
    return function  # type: ignore[no-any-return]


def checked(name: str, request: ScoreRequest, rewards: Any) -> list[float]:
    """The rewards as floats. Raises ScorerError naming the scorer and the group unless there is one number each."""
    where = f"scorer {name}, group {request.uid}"
    if not isinstance(rewards, Sequence) or len(rewards) != len(request.completions):
        raise ScorerError(f"{where}: expected {len(request.completions)} rewards, got {rewards!r:.200}")
    try:
        values = [float(r) for r in rewards]
    except (TypeError, ValueError) as error:
        raise ScorerError(f"{where}: a reward is not a number: {error}") from error
    if not all(math.isfinite(v) for v in values):
        raise ScorerError(f"{where}: a reward is not finite: {values}")
    return values


class InlineScorer:
    """Runs a scorer function in this process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._function = find(name)

    def score_now(self, request: ScoreRequest) -> list[float]:
        """Score without an event loop. Raises ScorerError."""
        try:
            rewards = self._function(request.question, list(request.completions), request.data)
        except Exception as error:
            raise ScorerError(f"scorer {self._name}, group {request.uid}: {type(error).__name__}: {error}") from error
        return checked(self._name, request, rewards)

    async def score(self, request: ScoreRequest) -> list[float]:
        """See `Scorer`. User code may be slow, so it runs on a thread."""
        import asyncio

        return await asyncio.to_thread(self.score_now, request)

    async def close(self) -> None:
        """Nothing to release."""
