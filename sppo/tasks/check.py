"""Every prompt of a task tried before anything starts: put through the codec, rendered, tokenised
and measured.

60,000 prompts take seconds: templates are rendered and tokenised in batches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

from sppo.config import RunConfig
from sppo.errors import BadFrame, ConfigError
from sppo.tasks.prompts import render, tokenize
from sppo.tasks.questions import Question, Questions
from sppo.transport import codec
from sppo.types import SamplingParams, Ticket

BATCH = 2000
_JSON = json.JSONEncoder(allow_nan=False)
MAX_TICKET = 16 * 2**20
"""Bytes of one ticket: a prompt and its row."""


def rows(questions: Questions) -> None:
    """Raises ConfigError with the first row whose columns a run could not use."""
    for question in (*questions.train, *questions.held_out):
        _check_travel(question)


def prompts(config: RunConfig, questions: Questions, tokenizer: Any) -> None:
    """Raises ConfigError with the first row whose prompt a run could not use."""
    at_most = config.task.max_prompt_tokens if _tokens_are_characters(tokenizer) else 0
    every = iter((*questions.train, *questions.held_out))
    while batch := list(islice(every, BATCH)):
        rendered = zip(batch, _render(batch, tokenizer), strict=True)
        unsure = [
            (q, text) for q, text in rendered if not (0 < len(text) <= at_most and text.isascii())
        ]
        _check_lengths(unsure, tokenizer, config.task.max_prompt_tokens)


def _render(questions: Sequence[Question], tokenizer: Any) -> list[str]:
    try:
        return render(tokenizer, [q.messages for q in questions])
    except Exception:
        # Whatever a model's template does; the row that it refuses is found by asking one by one.
        for question in questions:
            _try_template(question, tokenizer)
        raise


def _try_template(question: Question, tokenizer: Any) -> None:
    try:
        render(tokenizer, [question.messages])
    except Exception as error:
        # Most raise jinja2.TemplateError with words of their own.
        roles = ", ".join(role for role, _ in question.messages)
        raise ConfigError(
            f"{question.where}: the model's chat template refuses the prompt (messages: {roles}): "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_lengths(prompts: Sequence[tuple[Question, str]], tokenizer: Any, limit: int) -> None:
    for (question, _), ids in zip(
        prompts, tokenize(tokenizer, [text for _, text in prompts]), strict=True
    ):
        if len(ids) > limit:
            raise ConfigError(
                f"task.max_prompt_tokens = {limit}: {question.where}: a prompt of {len(ids)} "
                f"tokens begins "
                f"{question.text[:60]!r}; raise the limit or shorten the prompts"
            )
        if not ids:
            raise ConfigError(
                f"{question.where}: the model's chat template makes a prompt of no tokens of it"
            )


def _tokens_are_characters(tokenizer: Any) -> bool:
    """Whether ASCII text has at most as many tokens as characters: the tokenizer adds none before
    it splits.

    Prompts of fewer characters than `task.max_prompt_tokens` then need no tokenising, most of the
    time of these checks.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not (
        backend.normalizer is None or type(backend.normalizer).__name__ == "NFC"
    ):
        return False
    splits = str(backend.pre_tokenizer)
    return "Metaspace" not in splits and "add_prefix_space=True" not in splits


def _check_travel(question: Question) -> None:
    """What the broker carries to a generator must be what was read, and so must the body of a
    scorer's request.
    """
    ticket = Ticket(
        uid="train-000000000",
        stream="train",
        prompt_ids=(),  # token ids always can
        question=question.text,
        scorer_data=question.data,
        sampling=SamplingParams(completions=1, temperature=1.0, max_tokens=1, seed=0),
        min_version=0,
        messages=question.messages,
    )
    try:
        packed = codec.pack_ticket(ticket)
        same = codec.unpack_ticket(packed) == ticket
        _JSON.encode(question.data)
    except (ValueError, OverflowError, TypeError, RecursionError, BadFrame) as error:
        raise ConfigError(f"{question.where}: cannot be sent to a scorer: {error}") from error
    if not same:
        raise ConfigError(f"{question.where}: does not come back from the broker as it was sent")
    if len(packed) > MAX_TICKET:
        raise ConfigError(
            f"{question.where}: {len(packed):,} bytes with all its columns, and {MAX_TICKET:,} is "
            f"the most; "
            "leave out columns that the scorer does not need"
        )
