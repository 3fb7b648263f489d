"""Questions, and the count of what is no question of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sppo.tasks.chat import Message


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
    origin: int = 0
    """Which of the sources of `task.name` it is from."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole prompt as (role, content)."""
        return (*self.earlier, ("user", self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Rows that became no question, by the reason."""

    rows: int = 0
    """Rows of the sources in all."""
    bad: int = 0
    """Rows that cannot be used."""
    first_bad: str = ""
    """The first of them, and why."""
    duplicates: int = 0
    """Rows of which an earlier one has the same prompt."""
    contradictions: int = 0
    """Duplicates whose answer is another one."""
    overlap: int = 0
    """Training prompts that the held-out source has as well."""
    too_long: int = 0
    """Prompts beyond `task.max_prompt_tokens`."""

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(
            rows=self.rows + other.rows,
            bad=self.bad + other.bad,
            first_bad=self.first_bad or other.first_bad,
            duplicates=self.duplicates + other.duplicates,
            contradictions=self.contradictions + other.contradictions,
            overlap=self.overlap + other.overlap,
            too_long=self.too_long + other.too_long,
        )

    def describe(self) -> list[str]:
        """What was left out, for the terminal."""
        parts = []
        if self.duplicates:
            other = (
                f", {self.contradictions} of them with another answer"
                if self.contradictions
                else ""
            )
            parts.append(f"{self.duplicates} left out as duplicates of earlier rows{other}")
        if self.overlap:
            parts.append(f"{self.overlap} left out of training as they are held out")
        if self.too_long:
            parts.append(f"{self.too_long} left out as longer than task.max_prompt_tokens")
        if self.bad:
            parts.append(f"{self.bad} left out that cannot be used, the first: {self.first_bad}")
        return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The two sides of the split; no prompt stands on both."""

    train: tuple[Question, ...]
    held_out: tuple[Question, ...]
    weights: tuple[float, ...] = (1.0,)
    """Of the sources that the training side is from, by their number."""
    spare: int = 0
    """Prompts on the held-out side beyond those that are asked for."""
    left_out: LeftOut = field(default_factory=LeftOut)

    def describe(self) -> str:
        """What became of the rows, for the terminal."""
        parts = [f"{len(self.train)} prompts to train", f"{len(self.held_out)} held out"]
        if self.spare:
            parts.append(f"{self.spare} on the held-out side beyond task.held_out, unused")
        return f"{self.left_out.rows} rows: {'; '.join([*parts, *self.left_out.describe()])}"
