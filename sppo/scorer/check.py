"""The checks before a run: the scorer answers for real questions with made-up completions, as it
will be asked to.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO

from sppo.config import RunConfig
from sppo.errors import ConfigError, ScorerError
from sppo.scorer.base import InlineScorer, check_kind, check_options
from sppo.scorer.client import HttpScorer
from sppo.scorer.pool import LOAD_S
from sppo.tasks.questions import Question, Questions
from sppo.types import ScoreRequest, Scores

PROBES = 3
SLOW_S = 5.0


def check_scorer(config: RunConfig, found: Questions, tell: Callable[[str], None]) -> bool | None:
    """Have the scorer score a group as training asks it to, and one as an evaluation does; returns
    whether it compared, None where it was not asked for several completions.

    A user's function runs in a process of its own, as in the run, and is called once for each if it
    answers; what it prints is not shown. Its import has `pool.LOAD_S`, and so has its first call
    beyond `scorer.timeout_s`, as both may load a model. A question that is refused is followed by
    another, `PROBES` at most: a single bad one costs a dead letter, not the run. One that takes its
    time is waited for in so many words (`tell`).

    Raises ConfigError with the scorer's own words if it answers for none of them.
    """
    settings = config.scorer
    if not settings.url:
        check_options(settings.name, settings.class_options)
        if config.launch.ray_address and settings.gpus:
            return None  # where it will run there is a GPU, here there may be none
    with tempfile.TemporaryFile() as printed:
        return asyncio.run(_check(config, found, printed, tell))


async def _check(
    config: RunConfig, found: Questions, printed: IO[bytes], tell: Callable[[str], None]
) -> bool | None:
    settings = config.scorer
    name = f"scorer.url = {settings.url!r}" if settings.url else f"scorer.name = {settings.name!r}"
    with_mend = "; return one number for a single completion, or set task.held_out = 0"
    most_s = settings.timeout_s + (0 if settings.url else LOAD_S)
    words = f"waiting for {name}, which has {most_s:.0f} s for its first answer ..."
    slow = asyncio.get_running_loop().call_later(SLOW_S, tell, words)
    scorer = _Asked(config, printed.fileno())
    try:
        if refusal := await _refusal(scorer, found.train, config.sampling.completions):
            raise ConfigError(f"{name}: {refusal}{_last_words(printed, refusal)}")
        if refusal := await _refusal(scorer, found.held_out, 2 if scorer.compared else 1):
            mend = with_mend if config.sampling.completions > 1 else ""
            raise ConfigError(
                f"{name}, for an evaluation: {refusal}{_last_words(printed, refusal)}{mend}"
            )
    finally:
        slow.cancel()
        await scorer.close()
    return scorer.compared


class _Asked:
    """The scorer of a configuration, wherever it is."""

    def __init__(self, config: RunConfig, output: int) -> None:
        self._config = config
        self.compared: bool | None = None
        """Whether its last answer about several completions were preferences."""
        settings = config.scorer
        token = settings.token.get_secret_value()
        self._http: HttpScorer | None = None
        self._inline: InlineScorer | None = None
        if settings.url:
            self._http = HttpScorer(
                lambda: [settings.url], token=token, timeout_s=settings.timeout_s
            )
        else:
            self._inline = InlineScorer(
                settings.name,
                options=settings.class_options,
                timeout_s=settings.timeout_s,
                output=output,
            )

    async def score(self, request: ScoreRequest) -> None:
        """Raises ScorerError unless the answer is one that the run can use, or `later`."""
        scores: Scores | None = None
        if self._inline is not None:
            scores = await self._inline.score(request)
        elif self._http is not None:
            scores = await self._http.probe(request)
        if scores is not None and len(request.completions) > 1:
            self.compared = scores.preferences is not None
            check_kind(scores, self._config.objective, "the scorer")

    async def close(self) -> None:
        for scorer in (self._http, self._inline):
            if scorer is not None:
                await scorer.close()


async def _refusal(scorer: _Asked, questions: Sequence[Question], completions: int) -> str:
    """Why the scorer answers for none of the first questions; empty if it does, or there are
    none.
    """
    first, started = "", time.monotonic()
    for question in questions[:PROBES]:
        texts = made_up(question, completions)
        request = ScoreRequest(
            uid="probe",
            question=question.text,
            completions=texts,
            data=question.data,
            messages=question.messages,
            finish_reasons=["stop"] * completions,
            lengths=[len(text.split()) for text in texts],
            versions=["probe:0"] * completions,
        )
        try:
            await scorer.score(request)
            return ""
        except ScorerError as error:
            first = first or _explained(str(error), question)
        if time.monotonic() - started > PROBES:  # one that is slow to refuse is not asked again
            break
    return first


def made_up(question: Question, count: int) -> list[str]:
    """Completions as a model might write them, the first with the answer, all of different
    lengths.
    """
    right = [f"The answer is {question.data['answer']}."] if "answer" in question.data else []
    return [
        *right,
        *(
            "I add it up and get " + " + ".join(map(str, range(n))) + "."
            for n in range(1, count + 1)
        ),
    ][:count]


def _explained(refusal: str, question: Question) -> str:
    for head in ("group probe: ", "the scorer: "):
        _, _, rest = refusal.partition(head)
        refusal = rest or refusal
    if "KeyError" in refusal:
        refusal += f"; the data of a question holds {', '.join(sorted(question.data))}"
    return refusal


def _last_words(printed: IO[bytes], refusal: str) -> str:
    """The last line that a process printed before it died."""
    if "process" not in refusal:
        return ""
    printed.seek(0)
    lines = printed.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"; the last that it printed: {last[:300]}" if last else ""
