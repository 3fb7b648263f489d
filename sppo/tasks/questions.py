"""Distinct prompts, split once into training and held-out.

Procedural datasets repeat questions, and their seeds overlap (entry i of seed s is entry i + 1 of
seed s − 1), so two seeds do not make a split. A hash does: a prompt is on the same side in every
run, whatever the seed.

Distinct is the whole prompt. The hash is of what the row asks, so that another wording around it
does not move questions from one side to the other: of the column that `task.prompt` names, of
`task.messages`, or of the whole user message where several columns make it (a passage and what is
asked about it). A question of reasoning-gym is always its `question`.

A held-out source of its own is held out whole, and its prompts are left out of the training side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sppo.config import TaskConfig
from sppo.errors import ConfigError
from sppo.tasks import sources, travel
from sppo.tasks.chat import Message
from sppo.tasks.order import Order
from sppo.tasks.prompts import PromptMaker
from sppo.tasks.question import LeftOut, Question, Questions
from sppo.tasks.rows import Row, Tally, Unusable, column
from sppo.tasks.sources import Source

__all__ = ["HELD_OUT_SHARE", "Question", "Questions", "is_held_out", "load", "split"]

HELD_OUT_SHARE = 5  # one question in five may be held out
ANSWER = "answer"

Readable = Callable[[Mapping[str, Any]], object]
"""Raises ValueError for the columns of a row of which a scorer could make nothing."""


def is_held_out(text: str) -> bool:
    """Which side a question's text belongs to."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % HELD_OUT_SHARE == 0


def load(config: TaskConfig, seed: int, readable: Readable | None = None) -> Questions:
    """The questions of a task, of which the scorer's `readable` can read the answer.

    Raises ConfigError for an unknown task, a bad file, rows of which most cannot be used, or too
    few questions.
    """
    reader = _Reader(config, readable)
    given = sources.training(config)
    for number, source in enumerate(given):
        reader.read(source, number)
    if (own := sources.held_out(config)) is None:
        sides = split(reader.distinct.values(), held_out=int(config.held_out))
        found = replace(sides, left_out=reader.left_out)
    else:
        found = _apart(reader.distinct.values(), config, own, readable, reader.left_out)
    found = replace(found, weights=tuple(source.weight for source in given))
    Order(found, seed)
    return found


def split(questions: Iterable[Question], *, held_out: int) -> Questions:
    """Split distinct questions by the hash of what they ask. Raises ConfigError if either side is
    too small.
    """
    sides: dict[bool, list[Question]] = {True: [], False: []}
    for question in questions:
        sides[is_held_out(question.source)].append(question)
    if not held_out:  # nothing to keep apart
        sides = {True: [], False: [*sides[False], *sides[True]]}
    if len(sides[True]) < held_out or not sides[False]:
        raise ConfigError(
            f"task.held_out = {held_out}: there are {len(sides[True])} distinct prompts on the "
            f"held-out side and {len(sides[False])} for training; lower it, name a source of its "
            "own, or raise task.pool"
        )
    # The held-out choice must not depend on the run's seed: accuracies of two seeds are compared.
    chosen = sorted(sides[True], key=lambda q: hashlib.sha256(q.source.encode()).digest())
    return Questions(
        train=tuple(sides[False]),
        held_out=tuple(chosen[:held_out]),
        spare=len(chosen) - held_out,
    )


class _Reader:
    """Distinct questions of sources, and the count of rows that are left out."""

    def __init__(self, config: TaskConfig, readable: Readable | None) -> None:
        self._config = config
        self._readable = readable
        self._maker = PromptMaker(config)
        self.distinct: dict[tuple[Message, ...], Question] = {}
        self.left_out = LeftOut()

    def read(self, source: Source, number: int) -> None:
        """Add a source. Raises ConfigError if most of its rows cannot be used."""
        rows, tally = sources.read(source, pool=self._config.pool)
        duplicates = contradictions = 0
        for row in rows:
            try:
                question = self._question(row, source, number)
            except Unusable as error:
                tally.leave_out(row.where, error)
                continue
            first = self.distinct.setdefault(question.messages, question)
            duplicates += first is not question
            contradictions += first.data.get(ANSWER) != question.data.get(ANSWER)
        tally.check()
        self.left_out += _left_out(tally, duplicates, contradictions)

    def _question(self, row: Row, source: Source, number: int) -> Question:
        prompt = self._maker.prompt(row, procedural=source.kind == "reasoning-gym")
        question = Question(
            source=prompt.source,
            text=prompt.messages[-1][1],
            data=self._data(row.columns),
            earlier=prompt.messages[:-1],
            where=row.where,
            origin=number,
        )
        if self._readable is not None:
            try:
                self._readable(question.data)
            except ValueError as error:
                raise Unusable(str(error)) from error
        travel.check(question)
        return question

    def _data(self, columns: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the scorer gets: the columns as they are, and the answer under its name."""
        name = self._config.answer
        if name == ANSWER:
            return columns
        return {**columns, ANSWER: column(columns, name, "task.answer")}


def _left_out(tally: Tally, duplicates: int, contradictions: int) -> LeftOut:
    return LeftOut(
        rows=tally.rows,
        bad=tally.bad,
        first_bad=tally.first,
        duplicates=duplicates,
        contradictions=contradictions,
    )


def _apart(
    questions: Iterable[Question],
    config: TaskConfig,
    own: Source,
    readable: Readable | None,
    left_out: LeftOut,
) -> Questions:
    """All of the held-out source, and the training questions that it does not hold."""
    reader = _Reader(config, readable)
    reader.read(own, 0)
    held_out = tuple(reader.distinct.values())
    known = {_folded(q) for q in held_out}
    given = list(questions)
    train = tuple(q for q in given if _folded(q) not in known)
    if not train:
        raise ConfigError(
            f"{own.setting}: holds every prompt of task.name, so that none is left to train; name "
            "another source, or a number"
        )
    counts = replace(left_out + reader.left_out, overlap=len(given) - len(train))
    return Questions(train=train, held_out=held_out, left_out=counts)


def _folded(question: Question) -> tuple[tuple[str, str], ...]:
    """A prompt whatever its spaces and capitals."""
    return tuple((role, " ".join(text.split()).casefold()) for role, text in question.messages)
