"""The class behind `scorer.name` = "llm-judge": which questions a group makes, and what the answers
add up to.

Every question goes through one `Asker`, so calls of all groups keep one limit of calls at a time. A
question that fails for good is not compared; a group of which nothing could be read is refused.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from sppo.config import JudgeConfig
from sppo.errors import ConfigError, ScorerError, ScorerRefused, ScorerSpent
from sppo.scorer import comparisons
from sppo.scorer.comparisons import Pair
from sppo.scorer.judge.asking import Asker, Counts, unreadable
from sppo.scorer.judge.endpoint import Endpoint
from sppo.scorer.judge.patience import Patient
from sppo.scorer.judge.prompts import Prompts
from sppo.scorer.judge.store import Store, Verdict
from sppo.types import ScoreRequest

Answer = Verdict | ScorerError
SAY_S = 60.0
SHOWN = 80
"""Letters of a judge's answer in the details of a completion."""


class LlmJudge:
    """See the module's docstring, `sppo.config.JudgeConfig` for the options, and
    docs/scorers/llm-judge.md.

    judge = LlmJudge(url="http://127.0.0.1:8000", model="...")
    await judge.setup()
    reply = await judge.score(request)        # {"preferences": [K, K], "details": [...]}
    await judge.close()
    """

    keeps_time = True
    """Its calls have deadlines of their own; to wait for a busy judge is no fault of a group."""

    def __init__(self, **options: Any) -> None:
        """Reads rubric and template, and connects to nothing. Raises ConfigError."""
        self.settings = settings = _settings(options)
        if lacks := settings.lacks():
            raise ConfigError(f"scorer.name = 'llm-judge' needs {lacks}")
        self._prompts = Prompts(settings.mode, rubric=settings.rubric, template=settings.template)
        self._endpoint: Endpoint | None = None
        self._store: Store | None = None
        self._patient: Patient | None = None
        self._asker: Asker | None = None
        self._said_at = time.monotonic()

    async def setup(self) -> None:
        """Open the cache and the way to the endpoint. Raises ConfigError for a file that is none
        of ours.
        """
        settings = self.settings
        self._store = Store(
            settings.cache, max_calls=settings.max_calls, max_cost=settings.max_cost,
            prices=settings.prices,
        )  # fmt: skip
        self._endpoint = Endpoint(
            settings.url, key=settings.api_key.get_secret_value(), timeout_s=settings.timeout_s,
            at_once=settings.max_concurrency,
        )  # fmt: skip
        self._patient = Patient(self._endpoint, at_once=settings.max_concurrency)
        self._asker = Asker(settings, self._patient, self._store)

    async def score(self, request: ScoreRequest) -> dict[str, Any]:
        """Preferences [K, K] with NaN where nothing was compared, or rewards [K]; and details.

        Rewards are what `rating` or `compare` = "reference" give; a single completion, which has
        nobody to be compared with, gets 1/2 otherwise. Raises ScorerError.
        """
        settings = self.settings
        if settings.mode == "rating":
            reply = await self._rate(request)
        elif settings.compare == "reference":
            reply = await self._against_reference(request)
        elif len(request.completions) == 1:
            reply = {"rewards": [0.5], "details": [{"met": 0}]}
        else:
            reply = await self._compare(request)
        self._say()
        return reply

    async def close(self) -> None:
        """Let go of both."""
        if self._endpoint is not None:
            await self._endpoint.close()
        if self._store is not None:
            self._store.close()

    @property
    def counts(self) -> Counts:
        """What this process has asked."""
        assert self._asker is not None
        return self._asker.counts

    def counters(self) -> dict[str, int]:
        """The same with tries after errors and waits for a busy judge: for the service's /metrics
        and the run's metrics.jsonl.
        """
        assert self._patient is not None
        patience = {"retries": self._patient.retries, "waits": self._patient.waits}
        return asdict(self.counts) | patience

    async def first_wins(self, request: ScoreRequest, first: str, second: str) -> Answer:
        """Probability that `first`, shown first, is the better one, or why it cannot be had.

        Raises ScorerRefused and ScorerSpent.
        """
        return (await self._all(request, [{"first": first, "second": second}]))[0]

    # ----------------------------------------------------------------------------------------------
    async def _compare(self, request: ScoreRequest) -> dict[str, Any]:
        texts, k = request.completions, len(request.completions)
        asked = self._pairs(k, request.uid)
        shown = [{"first": texts[i], "second": texts[j]} for i, j in asked]
        answers = dict(zip(asked, self._read(await self._all(request, shown)), strict=True))
        said = {pair: _value(answer) for pair, answer in answers.items()}
        matrix_KK = comparisons.matrix(k, said)
        return {
            "preferences": matrix_KK.tolist(),
            "details": [_details(i, answers) for i in range(k)],
        }

    def _pairs(self, k: int, uid: str) -> tuple[Pair, ...]:
        """The ordered pairs to ask about. Where one order has to do, half of the completions'
        pairs are asked the other way round.
        """
        settings = self.settings
        pairs = comparisons.pairs(settings.compare, k, opponents=settings.opponents, uid=uid)
        if settings.both_orders:
            return comparisons.both_orders(pairs)
        return tuple((j, i) if (i + j) % 2 else (i, j) for i, j in pairs)

    async def _against_reference(self, request: ScoreRequest) -> dict[str, Any]:
        column = self.settings.reference
        reference = request.data.get(column)
        if not isinstance(reference, str) or not reference.strip():
            raise ScorerRefused(
                f"scorer.judge.reference = {column!r}: the row has no text there; it has "
                f"{', '.join(sorted(request.data)) or 'nothing'}"
            )
        shown, n = list[dict[str, str]](), 1 + self.settings.both_orders
        for text in request.completions:
            orders = ({"first": text, "second": reference}, {"first": reference, "second": text})
            shown += orders[:n]
        answers = self._read(await self._all(request, shown))
        rewards, details = list[float](), list[Mapping[str, Any]]()
        for at in range(0, len(answers), n):
            values = [_value(answer) for answer in answers[at : at + n]]
            rewards.append(comparisons.mean_of_orders(values[0], values[1] if n == 2 else math.nan))
            details.append({"said": [_words(answer) for answer in answers[at : at + n]]})
        return {"rewards": _finite(rewards, answers), "details": details}

    async def _rate(self, request: ScoreRequest) -> dict[str, Any]:
        shown = [{"completion": text} for text in request.completions]
        answers = self._read(await self._all(request, shown))
        rewards = _finite([_value(answer) for answer in answers], answers)
        return {"rewards": rewards, "details": [{"said": _words(answer)} for answer in answers]}

    async def _all(self, request: ScoreRequest, shown: Sequence[Mapping[str, str]]) -> list[Answer]:
        """An answer about each; what is asked twice is asked once.

        Raises ScorerSpent, ScorerRefused or another error that one of them raised once all have
        ended, so that no answer is paid for in vain.
        """
        names = [tuple(sorted(texts.items())) for texts in shown]
        once = dict(zip(names, shown, strict=True))
        found = await asyncio.gather(
            *(self._ask(request, **texts) for texts in once.values()), return_exceptions=True
        )
        others = [e for e in found if isinstance(e, BaseException) and type(e) is not ScorerError]
        if others:
            raise next((e for e in others if isinstance(e, ScorerSpent)), others[0])
        by_name = dict(zip(once, found, strict=True))
        return [each for name in names if isinstance(each := by_name[name], Verdict | ScorerError)]

    def _read(self, answers: list[Answer]) -> list[Answer]:
        """The same. Raises ScorerError if none of them can be read."""
        if answers and all(math.isnan(_value(answer)) for answer in answers):
            if errors := [each for each in answers if isinstance(each, ScorerError)]:
                raise errors[-1]
            raise ScorerError(unreadable(self.settings, len(answers), _words(answers[-1])))
        return answers

    async def _ask(self, request: ScoreRequest, **texts: str) -> Verdict:
        """The mean of `samples` answers that can be read. Twice the same text is a tie, and costs
        nothing.
        """
        assert self._asker is not None
        if "first" in texts and texts["first"] == texts["second"]:
            return Verdict(value=0.5, words="the same text")
        messages = self._prompts.messages(request, **texts)
        verdicts = await asyncio.gather(
            *(self._asker.ask(messages, sample) for sample in range(self.settings.samples))
        )
        values = [each.value for each in verdicts if not math.isnan(each.value)]
        mean = sum(values) / len(values) if values else math.nan
        return Verdict(value=mean, words=" | ".join(each.words for each in verdicts))

    def _say(self) -> None:
        """Now and then, to the log of the role."""
        if time.monotonic() - self._said_at > SAY_S:
            self._said_at = time.monotonic()
            print(f"the judge: {described(self.counts)}", file=sys.stderr)


def described(counts: Counts) -> str:
    """Calls and tokens in words."""
    return (
        f"{counts.calls} calls, {counts.prompt_tokens} + {counts.answer_tokens} tokens, "
        f"{counts.cached} answers kept, {counts.unreadable} not to be read"
    )


def _settings(options: Mapping[str, Any]) -> JudgeConfig:
    try:
        return JudgeConfig(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(["scorer.judge", *(str(part) for part in first["loc"])])
        raise ConfigError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from error


def _finite(rewards: list[float], answers: Sequence[Answer]) -> list[float]:
    """Rewards as they are. Raises ScorerError if one could not be had: there is no training
    without it.
    """
    if any(math.isnan(reward) for reward in rewards):
        lost = [answer for answer in answers if math.isnan(_value(answer))]
        raise ScorerError(
            f"{len(lost)} of {len(answers)} answers of the judge cannot be read; the last was "
            f"{_words(lost[-1])!r}"
        )
    return rewards


def _value(answer: Answer) -> float:
    return answer.value if isinstance(answer, Verdict) else math.nan


def _words(answer: Answer) -> str:
    return answer.words if isinstance(answer, Verdict) else str(answer)


def _details(i: int, answers: Mapping[Pair, Answer]) -> dict[str, Any]:
    """What the judge said of completion `i`: against whom, where it stood, how likely it won."""
    met = []
    for (first, second), answer in answers.items():
        if i in (first, second):
            value = _value(answer) if i == first else 1 - _value(answer)
            met.append(
                {
                    "against": second if i == first else first,
                    "shown": "first" if i == first else "second",
                    "wins": None if math.isnan(value) else round(value, 4),
                    "said": _words(answer)[:SHOWN],
                }
            )
    return {"met": len({each["against"] for each in met if each["wins"] is not None}), "judge": met}
