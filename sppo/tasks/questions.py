"""Distinct prompts, split once into training and held-out by a hash.

Procedural datasets repeat questions, and their seeds overlap (entry i of seed s is entry i + 1 of
seed s − 1), so two seeds do not make a split. The hash does: a prompt is on the same side in every
run, whatever the seed.

Distinct is the whole prompt. The hash is of the question alone, so that another wording around it
does not move questions from one side to the other; but where `task.prompt` names other columns of a
file, rows with the same question are different tasks (a passage and what is asked about it), and
the hash is of the whole prompt. A question of reasoning-gym is always whole.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sppo.config import TaskConfig
from sppo.errors import ConfigError
from sppo.tasks.prompts import Message, PromptMaker
from sppo.tasks.rows import Row, read

HELD_OUT_SHARE = 5  # one question in five may be held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One prompt before the chat template."""

    source: str
    """What the split hashes."""
    text: str
    """The last user message: what a scorer gets as the question."""
    data: Mapping[str, Any]
    """For the scorer: every column of the row."""
    earlier: tuple[Message, ...] = ()
    """Messages before it."""
    where: str = ""
    """Its row, for messages."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole prompt as (role, content)."""
        return (*self.earlier, ("user", self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The two sides of the split; no prompt stands on both."""

    train: tuple[Question, ...]
    held_out: tuple[Question, ...]
    rows: int = 0
    """Rows of the source."""
    duplicates: int = 0
    """Rows left out because an earlier one has the same prompt."""
    contradictions: int = 0
    """Duplicates whose answer is another one."""

    def training_order(self, seed: int, number: int) -> list[int]:
        """Positions in `train` for pass `number`: every question once, in an order of that pass."""
        order = list(range(len(self.train)))
        random.Random(f"{seed}:{number}").shuffle(order)
        return order

    def describe(self) -> str:
        """What became of the rows, for the terminal."""
        parts = [f"{len(self.train)} prompts to train", f"{len(self.held_out)} held out"]
        if self.duplicates:
            other = (
                f", {self.contradictions} of them with another answer"
                if self.contradictions
                else ""
            )
            parts.append(f"{self.duplicates} left out as duplicates of earlier rows{other}")
        if spare := self.rows - self.duplicates - len(self.train) - len(self.held_out):
            parts.append(f"{spare} on the held-out side beyond task.held_out, unused")
        return f"{self.rows} rows: {'; '.join(parts)}"


def is_held_out(text: str) -> bool:
    """Which side a question's text belongs to."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % HELD_OUT_SHARE == 0


def load(config: TaskConfig, seed: int) -> Questions:
    """The questions of a task. Raises ConfigError for an unknown task, a bad file or too few
    questions.
    """
    maker = PromptMaker(config)
    whole = config.name.startswith("reasoning-gym:") or maker.asks_only_the_question
    rows = read(config)
    distinct: dict[tuple[Message, ...], Question] = {}
    contradictions = 0
    for row in rows:
        messages = maker.messages(row)
        first = distinct.setdefault(messages, _question(row, messages, by_question=whole))
        contradictions += first.data is not row.columns and first.data.get(
            "answer"
        ) != row.columns.get("answer")
    sides = split(distinct.values(), held_out=config.held_out, seed=seed, name=config.name)
    return Questions(
        train=sides.train,
        held_out=sides.held_out,
        rows=len(rows),
        duplicates=len(rows) - len(distinct),
        contradictions=contradictions,
    )


def split(questions: Iterable[Question], *, held_out: int, seed: int, name: str) -> Questions:
    """Split distinct questions by the hash of their text. Raises ConfigError if either side is too
    small.
    """
    sides: dict[bool, list[Question]] = {True: [], False: []}
    for question in questions:
        sides[is_held_out(question.source)].append(question)
    if not held_out:  # nothing to keep apart
        sides = {True: [], False: [*sides[False], *sides[True]]}
    if len(sides[True]) < held_out or not sides[False]:
        raise ConfigError(
            f"task.held_out = {held_out}: {name} has {len(sides[True])} distinct prompts on the "
            f"held-out side "
            f"and {len(sides[False])} for training; lower it, or raise task.pool"
        )
    # The held-out choice must not depend on the run's seed: accuracies of two seeds are compared.
    chosen = sorted(sides[True], key=lambda q: hashlib.sha256(q.source.encode()).digest())[
        :held_out
    ]
    return Questions(train=tuple(sides[False]), held_out=tuple(chosen))


def _question(row: Row, messages: tuple[Message, ...], *, by_question: bool) -> Question:
    asked = row.columns["question"] if by_question else messages
    if not by_question and len(messages) == 1:
        asked = messages[0][1]
    source = asked if isinstance(asked, str) else json.dumps(asked, ensure_ascii=False)
    return Question(
        source=source,
        text=messages[-1][1],
        data=row.columns,
        earlier=messages[:-1],
        where=row.where,
    )
