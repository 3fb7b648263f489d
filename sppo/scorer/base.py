"""What a scorer is, how one is found by name, and what an answer must be.

A scorer takes one prompt's completions and returns a number for each, or how they compare:

    def score(question, completions, data) -> [1.0, 0.0]
    def score(request: ScoreRequest) -> [[0.5, 1.0], [0.0, 0.5]]
    class Ranker: ...                           # see `sppo.scorer.calls`

A comparison is P with P[i][j] the probability that completion i is preferred to j: within [0, 1],
P[i][j] + P[j][i] = 1 and so P[i][i] = 1/2; cycles are legal; NaN for both where i and j were not
compared. An evaluation has two completions, the newest answer and the base model's; from the second
on a scorer that gives rewards gets the newest alone.
`scorer.name` is a name of `SCORERS` or an import string `package.module:name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sppo.config import ObjectiveConfig
from sppo.errors import ConfigError, ScorerError, ScorerRefused, SppoError
from sppo.scorer import calls, comparisons
from sppo.scorer.pool import Pool
from sppo.scorer.process import Source
from sppo.scorer.rules import (
    boxed_answer,
    closest_number,
    exact_match,
    last_number,
    reasoning_gym_score,
)
from sppo.scorer.threads import Rule, Threads
from sppo.types import ScoreRequest, Scores

SCORERS: dict[str, Rule | str] = {
    "exact-match": exact_match,
    "last-number": last_number,
    "closest-number": closest_number,
    "boxed-answer": boxed_answer,
    "reasoning-gym": reasoning_gym_score,
    "reward-model": "sppo.scorer.reward_model:RewardModel",
    "pairwise-model": "sppo.scorer.pairwise_model:PairwiseModel",
    "math": "sppo.scorer.math.scorer:Math",
    "code": "sppo.scorer.code.scorer:Code",
    "llm-judge": "sppo.scorer.judge.scorer:LlmJudge",
    "compose": "sppo.scorer.compose:Compose",
}
"""Ours by name: a rule, which runs on threads, or the import string of a class, which runs as a
user's would.
"""

TOLERANCE = 5e-3
"""How far P_ij + P_ji may be from 1: judges compute in bfloat16, which rounds both by up to
0.001.
"""
BOTH_ORDERS = (
    "a judge that depends on the order is asked in both, and P[i][j] = (p(i, j) + 1 - p(j, i)) / "
    "2 of its answers p"
)

ONE_SIDED = "expected finite numbers, or NaN (null in JSON) in both where they were not compared"


class Scorer(Protocol):
    """Scores groups; in this process or elsewhere.

    scores = await scorer.score(request)     # rewards [K] or preferences [K, K]
    await scorer.close()
    """

    async def score(self, request: ScoreRequest) -> Scores:
        """The scores of one group, checked. Raises ScorerError; ScorerRefused where it would fail
        again.
        """

    async def close(self) -> None:
        """Release connections and processes."""


def check_name(name: str) -> None:
    """Raises ConfigError unless this is a name of `SCORERS` or has the form of an import string."""
    module, colon, attribute = name.partition(":")
    if name in SCORERS or (module and colon and attribute):
        return
    raise ConfigError(
        f"scorer.name = {name!r}: no such scorer; there are {', '.join(SCORERS)}, or your own as "
        f"package.module:name"
    )


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError unless a scorer of ours takes these options. No model is loaded. Of a
    user's own nothing is known here: it is imported in its own process alone.
    """
    check_name(name)
    found = SCORERS.get(name)
    if isinstance(found, str):
        try:
            calls.make(name, calls.find(found)[0], options)
        except calls.OptionError as error:
            raise ConfigError(str(error)) from error
    elif found is not None:
        for key in options:
            raise ConfigError(f"scorer.options.{key}: no such option of {name}, which has none")


def checked(name: str, request: ScoreRequest, reply: Any) -> Scores:
    """What a scorer returned (see `calls.answer`), as rewards [K] or preferences [K, K].

    Raises ScorerError naming the scorer and the group unless it is one finite number for each
    completion, or a matrix of probabilities with P_ij + P_ji = 1 in which comparisons connect all
    who met anybody.
    """
    where, k = f"scorer {name}, group {request.uid}", len(request.completions)
    details = None
    try:
        reply = calls.answer(reply)
        if isinstance(reply, Mapping):
            details = reply["details"]
            reply = reply.get("rewards") or reply.get("preferences")
        with np.errstate(
            over="ignore"
        ):  # a number too large for float32 becomes infinite, and is refused below
            values = np.asarray(reply, np.float64).astype(np.float32)
    except Exception as error:
        # Whatever a user's objects do when they are made numbers of.
        raise ScorerError(f"{where}: expected numbers, got {reply!r:.200}: {error}") from error
    if details is not None and len(details) != k:
        raise ScorerError(f"{where}: expected {k} details, got {len(details)}")
    if values.shape == (k,):
        if not np.isfinite(values).all():
            raise ScorerError(f"{where}: a reward is not a finite float32: {values.tolist()}")
        return Scores(rewards=values, details=details)
    if values.shape != (k, k) or k < 2:
        matrix = (
            f" or {k} rows of {k} preferences"
            if k > 1
            else ": a single completion, as in every evaluation"
        )
        rewards = f"{k} rewards" if k > 1 else "1 reward"
        raise ScorerError(
            f"{where}: expected {rewards}{matrix}, got shape {list(values.shape)}: {reply!r:.200}"
        )
    return Scores(preferences=_preferences(where, values), details=details)


def check_kind(scores: Scores, config: ObjectiveConfig, where: str) -> None:
    """Raises ScorerRefused for rewards where the objective compares completions."""
    if scores.preferences is None and config.needs_preferences:
        raise ScorerRefused(
            f"{where}: objective.target = {config.target!r} with objective.label = "
            f"{config.label!r} "
            f"needs preferences and "
            "the scorer gave rewards; return a [K, K] matrix or set objective.link = "
            "'bradley-terry'"
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

    unmet_KK = np.isnan(values_KK)
    refuse(np.isinf(values_KK) | (unmet_KK != unmet_KK.T), ONE_SIDED)
    np.fill_diagonal(values_KK, np.where(np.diag(unmet_KK), 0.5, np.diag(values_KK)))
    refuse((values_KK < 0) | (values_KK > 1), "expected probabilities within [0, 1]")
    sums = f"expected a sum of 1, and 1/2 on the diagonal; {BOTH_ORDERS}"
    refuse(np.abs(values_KK + values_KK.T - 1) > TOLERANCE, sums)
    upper_KK = np.triu(values_KK, 1)
    exact_KK: NDArray[np.float32] = upper_KK + np.tril(1 - upper_KK.T, -1)
    np.fill_diagonal(exact_KK, 0.5)
    if why := comparisons.fault(exact_KK):
        raise ScorerError(f"{where}: preferences: {why}")
    return exact_KK


class InlineScorer:
    """Runs a scorer for this process: a rule of ours on its threads, others in processes of their
    own.

    Nothing is started before the first group, or `warm`.
    """

    def __init__(
        self,
        name: str,
        *,
        options: Mapping[str, Any] | None = None,
        timeout_s: float = 30.0,
        output: int | None = None,
    ) -> None:
        """A scorer in processes prints to the descriptor `output`, or where this process does.

        Raises ConfigError for a name that is none, or options that a scorer of ours has not.
        """
        check_options(name, options or {})
        self.name = name
        self._output = output
        self._timeout_s = timeout_s
        found = SCORERS.get(name, name)
        self._threads = None if isinstance(found, str) else Threads(found, timeout_s=timeout_s)
        target = found if isinstance(found, str) else ""
        self._source = Source(name=name, target=target, options=options or {})
        self._processes: Pool | None = None

    async def score(self, request: ScoreRequest, turn_s: float | None = None) -> Scores:
        """See `Scorer`.

        Raises ScorerError; ScorerRefused where it would fail again; ScorerBusy if it could not
        begin within `turn_s`; ConfigError if a scorer cannot be imported or set up; RoleDiedError
        once every thread is kept by a rule that does not return.
        """
        where = f"scorer {self.name}, group {request.uid}"
        try:
            one = self._threads
            reply: Any = (
                await one.score(request) if one else await self._pool().score(request, turn_s)
            )
        except ScorerError as error:
            raise type(error)(f"{where}: {error}") from error
        return checked(self.name, request, reply)

    def warm(self) -> None:
        """Begin to import a scorer that runs in processes."""
        if self._threads is None:
            self._pool().warm()

    @property
    def stuck(self) -> int:
        """Calls of a rule that are late and cannot be ended; a user's function is ended with its
        process.
        """
        return self._threads.stuck if self._threads is not None else 0

    @property
    def counters(self) -> dict[str, float]:
        """What a scorer in processes counts itself."""
        return self._processes.counters() if self._processes else {}

    @property
    def fault(self) -> SppoError | None:
        """Why this process can score no more, or None."""
        if self._threads is not None:
            return self._threads.fault
        return self._processes.fault if self._processes else None

    async def close(self) -> None:
        """End processes; leave threads: one that hangs is not waited for."""
        if self._threads is not None:
            self._threads.close()
        if self._processes is not None:
            self._processes.close()

    def _pool(self) -> Pool:
        if self._processes is not None and not self._processes.here:
            self._processes.close()
            self._processes = None
        if self._processes is None:
            self._processes = Pool(self._source, timeout_s=self._timeout_s, output=self._output)
        return self._processes
