"""Every prompt of a task tried before anything starts: rendered, tokenised and measured.

60,000 prompts take seconds: templates are rendered and tokenised in batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.tasks.order import Order
from sppo.tasks.prompts import render, tokenize
from sppo.tasks.question import LeftOut, Question, Questions
from sppo.tasks.rows import Tally

BATCH = 2000


def prompts(config: RunConfig, questions: Questions, tokenizer: Any) -> Questions:
    """The questions whose prompts the model can take; those that are too long, or that its chat
    template refuses, are counted among what is left out.

    Raises ConfigError where none is left on a side, where the template refuses most of them, and
    for the first that is too long if `task.too_long` says so.
    """
    check_options(config.task.chat_template_kwargs, tokenizer)
    sieve = _Sieve(config, tokenizer)
    train = sieve.keep(questions.train)
    held_out = sieve.keep(questions.held_out)
    sieve.tally.check()
    for side, before, after in (
        ("to train", questions.train, train),
        ("held out", questions.held_out, held_out),
    ):
        if before and not after:
            raise ConfigError(
                f"task.max_prompt_tokens = {config.task.max_prompt_tokens}: no prompt {side} is "
                f"that short; the shortest has {sieve.shortest} tokens; raise it"
            )
    left_out = LeftOut(bad=sieve.tally.bad, first_bad=sieve.tally.first, too_long=sieve.too_long)
    found = replace(
        questions, train=train, held_out=held_out, left_out=questions.left_out + left_out
    )
    Order(found, config.seed)
    return found


def check_options(options: Mapping[str, Any], tokenizer: Any) -> None:
    """Raises ConfigError for an option that the chat template does not read, or that is ours."""
    if not options:
        return
    ours = {*inspect.signature(tokenizer.apply_chat_template).parameters, "messages"}
    for name, value in options.items():
        setting = f"task.chat_template_kwargs.{name} = {value!r}"
        if name in ours:
            raise ConfigError(f"{setting}: is no option of a template; leave it out")
        if name not in str(tokenizer.chat_template):
            raise ConfigError(
                f"{setting}: the model's chat template does not read {name}; leave it out"
            )


class _Sieve:
    """Lets questions through, and counts the others."""

    def __init__(self, config: RunConfig, tokenizer: Any) -> None:
        self._task = config.task
        self._tokenizer = tokenizer
        self._certain = config.task.max_prompt_tokens if _tokens_are_characters(tokenizer) else 0
        self.tally = Tally(setting="the model's chat template")
        self.too_long = 0
        self.shortest = 0
        """Tokens of the shortest prompt that is too long; 0 before there is one."""

    def keep(self, questions: Iterable[Question]) -> tuple[Question, ...]:
        """Those that can be asked, in their order."""
        every, kept = iter(questions), list[Question]()
        while batch := list(islice(every, BATCH)):
            self.tally.rows += len(batch)
            rendered = self._render(batch)
            lengths = self._lengths([text for _, text in rendered])
            kept += [
                question
                for (question, _), length in zip(rendered, lengths, strict=True)
                if self._fits(question, length)
            ]
        return tuple(kept)

    def _render(self, questions: Sequence[Question]) -> list[tuple[Question, str]]:
        """Those that the template takes, with their texts."""
        options = self._task.chat_template_kwargs
        try:
            texts = render(self._tokenizer, [q.messages for q in questions], options)
            return list(zip(questions, texts, strict=True))
        except Exception as error:  # noqa: BLE001 - whatever a model's template does
            # What it refuses is found by asking one by one.
            if len(questions) > 1:
                return [pair for question in questions for pair in self._render([question])]
            # Most raise jinja2.TemplateError with words of their own.
            [question] = questions
            roles = ", ".join(role for role, _ in question.messages)
            self.tally.leave_out(
                question.where,
                f"the model's chat template refuses the prompt (messages: {roles}): "
                f"{type(error).__name__}: {error}",
            )
            return []

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; for a short one that needs no counting its characters, which are
        no fewer.
        """
        sure = [0 < len(text) <= self._certain and text.isascii() for text in texts]
        counted = iter(
            tokenize(
                self._tokenizer, [t for t, is_sure in zip(texts, sure, strict=True) if not is_sure]
            )
        )
        return [
            len(text) if is_sure else len(next(counted))
            for text, is_sure in zip(texts, sure, strict=True)
        ]

    def _fits(self, question: Question, length: int) -> bool:
        limit = self._task.max_prompt_tokens
        if not length:
            self.tally.leave_out(
                question.where, "the model's chat template makes a prompt of no tokens of it"
            )
        elif length > limit:
            if self._task.too_long == "error":
                raise ConfigError(
                    f"task.max_prompt_tokens = {limit}: {question.where}: a prompt of {length} "
                    f"tokens begins {question.text[:60]!r}; raise the limit, or leave such prompts "
                    "out: task.too_long = 'drop'"
                )
            self.too_long += 1
            self.shortest = min(self.shortest or length, length)
        return 0 < length <= limit


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
