"""The base model's answers to the held-out questions: what later evaluations compare with where the
scorer compares.

    RUN/base_answers.json    by the question's number: tokens, text, why it ended

Made by the evaluation at step 0, and written durably before its record can be in a checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sppo.errors import ConfigError
from sppo.learner.checkpoint import flush
from sppo.tasks.tickets import held_out_number
from sppo.types import Answer, Group


class BaseAnswers:
    """Those of one run."""

    def __init__(self, run_dir: Path, tokenizer: Any) -> None:
        self._path = run_dir / "base_answers.json"
        self._tokenizer = tokenizer

    def keep(self, groups: Sequence[Group]) -> None:
        """Write down the first completion of each of these groups."""
        answers = {}
        for group in groups:
            tokens = group.completions[0].token_ids.tolist()
            answers[str(held_out_number(group.uid))] = {
                "token_ids": tokens,
                "text": self._tokenizer.decode(tokens, skip_special_tokens=True),
                "finish_reason": group.completions[0].finish_reason,
            }
        scratch = self._path.with_suffix(".partial")
        with scratch.open("w", encoding="utf-8") as file:
            json.dump(answers, file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._path)
        flush(self._path.parent)

    def read(self) -> Mapping[int, Answer]:
        """By the question's number. Raises ConfigError if they are gone or damaged."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {
                int(number): Answer(
                    token_ids=tuple(answer["token_ids"]),
                    text=answer["text"],
                    finish_reason=answer["finish_reason"],
                )
                for number, answer in found.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{self._path}, which evaluations compare with, cannot be read "
                f"({type(error).__name__}): put it back, or begin in another --run-dir"
            ) from error
