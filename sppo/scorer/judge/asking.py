"""One question to its verdict: kept answers first, then a call; log-probs where they are given."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import Any

from sppo.config import JudgeConfig
from sppo.errors import ScorerRefused
from sppo.scorer.judge import store, verdicts
from sppo.scorer.judge.endpoint import NotThis, Reply
from sppo.scorer.judge.patience import Patient
from sppo.scorer.judge.prompts import Messages
from sppo.scorer.judge.store import Store, Verdict

log = logging.getLogger(__name__)

ALTERNATIVES = (20, 5)
"""Log-probs in each place that are asked for: the most that endpoints give, and what some do."""
FIRST_ANSWERS = 16
"""If none of so many can be read, the judge is no judge."""
LONGEST_WORDS = 300


@dataclass(slots=True)
class Counts:
    """Of one process since it began."""

    calls: int = 0
    """Answered."""
    cached: int = 0
    """Answers that were there already."""
    unreadable: int = 0
    refused: int = 0
    """Questions that the endpoint would not answer."""
    prompt_tokens: int = 0
    answer_tokens: int = 0


class Asker:
    """Asks one judge.

    verdict = await asker.ask(messages, sample=0)
    """

    def __init__(self, settings: JudgeConfig, patient: Patient, answers: Store) -> None:
        self._settings = settings
        self._patient = patient
        self._store = answers
        self._forms = [0] if settings.logprobs == "off" else [*ALTERNATIVES, 0]
        """How many log-probs to ask for: the first that the endpoint takes."""
        self._proven = False
        """Whether it has given log-probs."""
        self._limit_name = "max_tokens"
        self._read = 0
        self.counts = Counts()

    async def ask(self, messages: Messages, sample: int = 0) -> Verdict:
        """The `sample`-th answer to one question, as a verdict.

        Raises ScorerError where the judge gave none, ScorerRefused where it cannot be used,
        ScorerSpent where a limit is reached.
        """
        name = store.key(self._question(messages) | {"sample": sample})
        kept = await asyncio.to_thread(self._store.find, name)
        if kept is not None:
            self.counts.cached += 1
            self._note(kept)
            return kept
        await asyncio.to_thread(self._store.reserve)
        try:
            reply = await self._reply(messages)
        except NotThis as error:
            self.counts.refused += 1
            await asyncio.to_thread(self._store.give_back)
            verdict = Verdict(value=math.nan, words=str(error)[:LONGEST_WORDS])
            self._note(verdict)
            return verdict
        except BaseException:
            self._store.give_back()
            raise
        verdict = self._verdict(reply)
        self.counts.calls += 1
        self.counts.prompt_tokens += reply.prompt_tokens
        self.counts.answer_tokens += reply.answer_tokens
        await asyncio.to_thread(
            self._store.keep, name, verdict,
            prompt_tokens=reply.prompt_tokens, answer_tokens=reply.answer_tokens,
        )  # fmt: skip
        self._note(verdict)
        return verdict

    def _question(self, messages: Messages) -> dict[str, Any]:
        """All that the answer depends on."""
        settings = self._settings
        wanted = ("model", "mode", "temperature", "max_tokens", "logprobs")
        return {"messages": messages} | {name: getattr(settings, name) for name in wanted}

    async def _reply(self, messages: Messages) -> Reply:
        """An answer, in the first form that the endpoint takes. Raises NotThis if it takes none."""
        while True:
            form, limit = self._forms[0], self._limit_name
            try:
                reply = await self._patient.complete(self._body(messages, form, limit))
            except NotThis as error:
                if limit == "max_tokens" and "max_completion_tokens" in str(error):
                    self._limit_name = "max_completion_tokens"
                elif form and not self._proven and "logprob" in str(error):
                    self._without(form, why=str(error))
                else:
                    raise
                continue
            if form and reply.tokens:
                self._proven = True
            elif not self._proven and reply.text and self._settings.logprobs != "off":
                self._without(*self._forms[:-1], why="its answers hold none")
            return reply

    def _without(self, *forms: int, why: str) -> None:
        """Ask for fewer log-probs from now on. Raises ScorerRefused if that is none and they are
        required.
        """
        known = not set(forms) & set(self._forms)  # by another call beside this one
        self._forms = [form for form in self._forms if form not in forms]
        if self._forms != [0]:
            return
        said = f"scorer.judge.url = {self._settings.url!r} gives no log-probs ({why})"
        if self._settings.logprobs == "required":  # for each call: none is taken without
            raise ScorerRefused(
                f"scorer.judge.logprobs = 'required': {said}; 'auto' takes its verdicts as 1, 0 or "
                "1/2"
            )
        if not known:
            log.warning("%s: its verdicts are taken as they are", said)

    def _body(self, messages: Messages, form: int, limit: str) -> dict[str, Any]:
        settings = self._settings
        return {
            "model": settings.model,
            "messages": messages,
            "temperature": settings.temperature,
            limit: settings.max_tokens,
        } | ({"logprobs": True, "top_logprobs": form} if form else {})

    def _verdict(self, reply: Reply) -> Verdict:
        read = verdicts.preference if self._settings.mode == "pairwise" else verdicts.rating
        cut = f" (cut at scorer.judge.max_tokens = {self._settings.max_tokens})"
        return Verdict(
            value=read(reply.text, reply.tokens),
            words=" ".join(reply.text.split())[:LONGEST_WORDS] + cut * reply.cut,
        )

    def _note(self, verdict: Verdict) -> None:
        """Count what can be read. Raises ScorerRefused if nothing ever could."""
        if not math.isnan(verdict.value):
            self._read += 1
            return
        self.counts.unreadable += 1
        if not self._read and self.counts.unreadable >= FIRST_ANSWERS:
            raise ScorerRefused(unreadable(self._settings, FIRST_ANSWERS, verdict.words))


def unreadable(settings: JudgeConfig, answers: int, words: str) -> str:
    """What is said of a judge none of whose answers can be read."""
    wanted = "the letter A, B or C" if settings.mode == "pairwise" else "a number"
    return (
        f"scorer.judge.model = {settings.model!r}: none of {answers} answers says {wanted}; the "
        f"last was {words!r}. Ask for it in scorer.judge.rubric, or take another model"
    )
