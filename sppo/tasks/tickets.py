"""Tickets from questions: token ids by the model's chat template, seeds and uids from the ticket's
index.

The same configuration and index always make the same ticket, so a learner that resumes from a
checkpoint can issue again whatever that checkpoint does not cover.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sppo.config import RunConfig
from sppo.tasks.order import Order
from sppo.tasks.prompts import encode
from sppo.tasks.questions import Question, Questions
from sppo.types import Answer, SamplingParams, Ticket, TicketStream

SEED_STRIDE = 1_000_003


class TicketFactory:
    """Makes training tickets by index and the evaluation tickets of one version."""

    def __init__(self, config: RunConfig, questions: Questions, tokenizer: Any) -> None:
        self._config = config
        self._questions = questions
        self._tokenizer = tokenizer
        self._order = Order(questions, config.seed)
        self._options = config.task.chat_template_kwargs
        self._held_out_ids: list[list[int]] = []

    def training(self, index: int, min_version: int) -> Ticket:
        """The ticket of training index `index`."""
        sampling = self._config.sampling
        question = self._order.question(index)
        return _ticket(
            uid=training_uid(index),
            question=question,
            ids=encode(self._tokenizer, [question.messages], self._options)[0],
            sampling=SamplingParams(
                completions=sampling.completions,
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
                seed=(self._config.seed * SEED_STRIDE + index) % 2**31,
            ),
            min_version=min_version,
            stream="train",
        )

    def evaluation(
        self, name: str, n: int, *, paired: bool = False,
        against: Mapping[int, Answer] | None = None,
    ) -> list[Ticket]:  # fmt: skip
        """One greedy ticket for each held-out question, none of which may be begun by weights older
        than `n`. With answers `against` by the question's number: for those questions alone.
        """
        sampling = SamplingParams(
            completions=1, temperature=0.0, max_tokens=self._config.sampling.max_tokens, seed=0
        )
        if not self._held_out_ids:
            self._held_out_ids = encode(
                self._tokenizer,
                [q.messages for q in self._questions.held_out],
                self._options,
            )
        return [
            _ticket(
                uid=f"eval-{name}-{i:06d}",
                question=question,
                ids=ids,
                sampling=sampling,
                min_version=n,
                stream="eval",
                paired=paired or against is not None,
                against=None if against is None else against[i],
            )
            for i, (question, ids) in enumerate(
                zip(self._questions.held_out, self._held_out_ids, strict=True)
            )
            if against is None or i in against
        ]

    def messages(self, uid: str) -> tuple[tuple[str, str], ...]:
        """The whole prompt of a ticket that was made here, as (role, content)."""
        if uid.startswith("train-"):
            return self._order.question(training_index(uid)).messages
        return self._questions.held_out[held_out_number(uid)].messages


def _ticket(
    *,
    uid: str,
    question: Question,
    ids: list[int],
    sampling: SamplingParams,
    min_version: int,
    stream: TicketStream,
    paired: bool = False,
    against: Answer | None = None,
) -> Ticket:
    return Ticket(
        uid=uid,
        stream=stream,
        prompt_ids=tuple(ids),
        question=question.text,
        scorer_data=question.data,
        messages=question.messages,
        sampling=sampling,
        min_version=min_version,
        paired=paired,
        against=against,
        issued=time.time(),
    )


def training_uid(index: int) -> str:
    """The uid of training ticket `index`."""
    return f"train-{index:09d}"


def training_index(uid: str) -> int:
    """Inverse of `training_uid`."""
    return int(uid.removeprefix("train-"))


def held_out_number(uid: str) -> int:
    """The number of the held-out question that an evaluation ticket asks."""
    return int(uid.rpartition("-")[2])
