"""What a scorer is, and how one is found by name.

A scorer function takes one prompt's completions and returns a number for each, or how they compare:

    def score(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> Sequence[float]: ...
    def compare(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> Sequence[Sequence[float]]: ...

`compare` returns P with P[i][j] the probability that completion i is preferred to j: within [0, 1], P[i][j] + P[j][i]
= 1 and so P[i][i] = 1/2; cycles are legal. An evaluation has one completion, for which it too returns one number.
`scorer.name` is a name of `SCORERS` or an import string `package.module:name` of such a function.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sppo.config import LearnerConfig
from sppo.errors import ConfigError, RoleDiedError, ScorerError
from sppo.scorer.rules import boxed_answer, closest_number, exact_match, last_number, reasoning_gym_score
from sppo.types import ScoreRequest, Scores

THREADS = 8
Reply = Sequence[float] | Sequence[Sequence[float]]
ScorerFunction = Callable[[str, Sequence[str], Mapping[str, Any]], Reply]

SCORERS: dict[str, ScorerFunction] = {
    "exact-match": exact_match,
    "last-number": last_number,
    "closest-number": closest_number,
    "boxed-answer": boxed_answer,
    "reasoning-gym": reasoning_gym_score,
}

TOLERANCE = 5e-3
"""How far P_ij + P_ji may be from 1: judges compute in bfloat16, which rounds both by up to 0.001."""


class Scorer(Protocol):
    """Scores groups; in this process or elsewhere.

    scores = await scorer.score(request)     # rewards [K] or preferences [K, K]
    await scorer.close()
    """

    async def score(self, request: ScoreRequest) -> Scores:
        """The scores of one group, checked. Raises ScorerError."""

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


def checked(name: str, request: ScoreRequest, reply: Any) -> Scores:
    """What a scorer returned, as rewards [K] or preferences [K, K].

    Raises ScorerError naming the scorer and the group unless it is one finite number for each completion, or a matrix
    of probabilities with P_ij + P_ji = 1.
    """
    where, k = f"scorer {name}, group {request.uid}", len(request.completions)
    try:
        with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is refused below
            values = np.asarray(reply, np.float64).astype(np.float32)
    except Exception as error:
        # Whatever a user's objects do when they are made numbers of.
        raise ScorerError(f"{where}: expected numbers, got {reply!r:.200}: {error}") from error
    if values.shape == (k,):
        if not np.isfinite(values).all():
            raise ScorerError(f"{where}: a reward is not a finite float32: {values.tolist()}")
        return Scores(rewards=values)
    if values.shape != (k, k) or k < 2:
        matrix = f" or {k} rows of {k} preferences" if k > 1 else ", as for every evaluation"
        raise ScorerError(f"{where}: expected {k} rewards{matrix}, got shape {list(values.shape)}: {reply!r:.200}")
    return Scores(preferences=_preferences(where, values))


def check_kind(scores: Scores, config: LearnerConfig, where: str) -> None:
    """Raises ScorerError for rewards where the objective compares completions."""
    if scores.preferences is None and config.needs_preferences:
        raise ScorerError(
            f"{where}: learner.target = {config.target!r} with learner.label = {config.label!r} needs preferences and "
            "the scorer gave rewards; return a [K, K] matrix or set learner.link = 'bradley-terry'"
        )


def _preferences(where: str, values_KK: NDArray[np.float32]) -> NDArray[np.float32]:
    """The matrix made exactly consistent. Raises ScorerError naming the entry that is wrong."""

    def refuse(wrong_KK: NDArray[np.bool_], what: str) -> None:
        if wrong_KK.any():
            i, j = (int(n) for n in np.argwhere(wrong_KK)[0])
            raise ScorerError(
                f"{where}: preferences[{i}][{j}] = {values_KK[i, j]:.6g}, preferences[{j}][{i}] = "
                f"{values_KK[j, i]:.6g}: {what}"
            )

    refuse(~np.isfinite(values_KK), "expected finite numbers")
    refuse((values_KK < 0) | (values_KK > 1), "expected probabilities within [0, 1]")
    refuse(np.abs(values_KK + values_KK.T - 1) > TOLERANCE, "expected a sum of 1, and 1/2 on the diagonal")
    upper_KK = np.triu(values_KK, 1)
    exact_KK: NDArray[np.float32] = upper_KK + np.tril(1 - upper_KK.T, -1)
    np.fill_diagonal(exact_KK, 0.5)
    return exact_KK


class InlineScorer:
    """Runs a scorer function in this process."""

    def __init__(self, name: str, *, timeout_s: float = 30.0) -> None:
        self._name = name
        self._function = find(name)
        self._timeout_s = timeout_s
        # Threads of its own: heartbeats and weight syncs must not queue behind a user's slow code.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="scorer")
        self._late: set[Future[Scores]] = set()

    def score_now(self, request: ScoreRequest) -> Scores:
        """Score without an event loop. Raises ScorerError."""
        try:
            reply = self._function(request.question, list(request.completions), request.data)
        except Exception as error:
            raise ScorerError(f"scorer {self._name}, group {request.uid}: {type(error).__name__}: {error}") from error
        return checked(self._name, request, reply)

    async def score(self, request: ScoreRequest) -> Scores:
        """See `Scorer`. User code may be slow, so it runs on a thread; one that never returns keeps that thread.

        Raises RoleDiedError once all threads are kept so: this process can score no more.
        """
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def work() -> Scores:
            loop.call_soon_threadsafe(begun.set)
            return self.score_now(request)

        thread = self._threads.submit(work)
        scoring = asyncio.wrap_future(thread)
        waiting = asyncio.ensure_future(begun.wait())
        either: set[asyncio.Future[Any]] = {waiting, scoring}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await scoring
        except TimeoutError:
            late = (
                f"scorer {self._name}, group {request.uid}: no answer within scorer.timeout_s = {self._timeout_s:.0f}"
            )
            self._late.add(thread)
            thread.add_done_callback(self._late.discard)
            if len(self._late) >= THREADS:
                raise RoleDiedError(f"{late}, and {THREADS} calls of it have not returned") from None
            raise ScorerError(late) from None

    async def close(self) -> None:
        """Leave the threads; one that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
