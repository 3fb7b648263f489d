"""A row's prompt: chat messages by `task.prompt` or `task.messages`, then token ids by the model's
chat template.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sppo.config import TaskConfig
from sppo.errors import ConfigError
from sppo.tasks import chat
from sppo.tasks.chat import Message
from sppo.tasks.rows import Row, Unusable, column, kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a row asks."""

    messages: tuple[Message, ...]
    """All of it, ending with the user's message."""
    source: str
    """What of it is the row's own, apart from the words around it: the split hashes that."""


class PromptMaker:
    """Makes prompts of rows. Raises ConfigError if `task.prompt` is no format string, or
    `task.few_shot` no such file.
    """

    def __init__(self, config: TaskConfig) -> None:
        self._config = config
        self._format = _Format()
        try:
            self._names = _names(config.prompt)
        except ValueError as error:
            raise ConfigError(
                f"task.prompt = {config.prompt!r}: {error}; write a brace itself as {{{{ or }}}}"
            ) from error
        if any(name == "" or name.isdigit() for name in self._names):
            raise ConfigError(
                f"task.prompt = {config.prompt!r}: name the field in braces, such as {{question}}"
            )
        self._few_shot = chat.few_shot(config.few_shot) if config.few_shot else ()

    def prompt(self, row: Row, *, procedural: bool = False) -> Prompt:
        """The prompt of a row. Raises Unusable saying what it lacks.

        A row of a procedural data set has its whole question in `question`, whatever columns the
        prompt names.
        """
        own = self._of_chat(row) if self._config.messages else (("user", self._filled(row)),)
        if not own[-1][1].strip():
            raise Unusable("the prompt is empty")
        return Prompt(
            messages=(*self._before(own), *_without_system(own)),
            source=row.columns["question"] if procedural else self._source(row, own),
        )

    def _before(self, own: Sequence[Message]) -> list[Message]:
        """The system message, and the examples."""
        first = own[0][1] if own[0][0] == "system" else self._config.system
        return [*([("system", first)] if first else []), *self._few_shot]

    def _source(self, row: Row, own: Sequence[Message]) -> str:
        if len(own) > 1:
            return json.dumps(own, ensure_ascii=False)
        asked = row.columns.get(next(iter(self._names))) if len(self._names) == 1 else None
        return asked if isinstance(asked, str) and not self._config.messages else own[0][1]

    def _of_chat(self, row: Row) -> tuple[Message, ...]:
        name = self._config.messages
        value = column(row.columns, name, "task.messages")
        try:
            found = chat.read(value)
        except Unusable as error:
            raise Unusable(f"column {name!r} {error}") from error
        if not found or found[-1][0] != "user":
            raise Unusable(
                f"column {name!r} is a list of messages that does not end with the user's"
            )
        return tuple(found)

    def _filled(self, row: Row) -> str:
        metadata = row.columns.get("metadata")
        fields = {**(metadata if isinstance(metadata, dict) else {}), **row.columns}
        try:
            return self._format.vformat(self._config.prompt, (), fields)
        except _NoText as error:
            raise Unusable(f"task.prompt = {self._config.prompt!r}: {error}") from error
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            wrong = f"no column {error}" if isinstance(error, LookupError) else error
            raise Unusable(
                f"task.prompt = {self._config.prompt!r}: {wrong}; there are "
                f"{', '.join(sorted(fields))}"
            ) from error


def _without_system(own: Sequence[Message]) -> Sequence[Message]:
    return own[1:] if own[0][0] == "system" else own


class _NoText(ValueError):  # noqa: N818 - becomes Unusable with the setting
    """A field that is neither text nor a number."""


class _Format(string.Formatter):
    """Format strings over text and numbers alone: of anything else Python would show its own
    notation.
    """

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        value, first = super().get_field(field_name, args, kwargs)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            chats = isinstance(value, list) and value and isinstance(value[0], dict)
            raise _NoText(
                f"{field_name} is {kind(value)}, not text or a number"
                + (f"; chat messages are named by task.messages = {field_name!r}" * bool(chats))
            )
        return value, first


def _names(template: str) -> set[str]:
    """Columns that a format string names."""
    found: set[str] = set()
    for _, field, spec, _ in string.Formatter().parse(template):
        if field is not None:
            found |= {field.partition(".")[0].partition("[")[0], *_names(spec or "")}
    return found


def render(
    tokenizer: Any, prompts: Sequence[Sequence[Message]], options: Mapping[str, Any]
) -> list[str]:
    """The text of each prompt by the chat template, with what begins the assistant's turn;
    `options` is `task.chat_template_kwargs`.
    """
    chats = [
        [{"role": role, "content": content} for role, content in messages] for messages in prompts
    ]
    texts: list[str] = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, tokenize=False, **options
    )
    return texts


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered prompts: the template has written the special tokens."""
    if not texts:
        return []
    batch = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return [[int(i) for i in ids] for ids in batch["input_ids"]]


def encode(
    tokenizer: Any, prompts: Sequence[Sequence[Message]], options: Mapping[str, Any]
) -> list[list[int]]:
    """Token ids of each prompt: what `apply_chat_template` makes of them one by one, in a fraction
    of the time.
    """
    return tokenize(tokenizer, render(tokenizer, prompts, options))
