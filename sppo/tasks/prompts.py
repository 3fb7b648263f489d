"""A row's prompt: chat messages by `task.prompt`, then token ids by the model's chat template."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from sppo.config import TaskConfig
from sppo.errors import ConfigError
from sppo.tasks.rows import Row, kind

ROLES = ("system", "user", "assistant")
Message = tuple[str, str]
"""(role, content)"""


class PromptMaker:
    """Fills `task.prompt` from rows. Raises ConfigError if it is no format string."""

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

    @property
    def asks_only_the_question(self) -> bool:
        """Whether no column but `question` tells prompts apart."""
        return self._names <= {"question"}

    def messages(self, row: Row) -> tuple[Message, ...]:
        """The prompt of a row. Raises ConfigError naming the row."""
        question = row.columns["question"]
        earlier: tuple[Message, ...] = ()
        if isinstance(question, list):
            *earlier_, (_, question) = _chat(row.where, question)
            earlier = tuple(earlier_)
        elif not isinstance(question, str):
            raise ConfigError(
                f"{row.where}: question is {kind(question)}; write it as text, or as chat messages"
            )
        text = self._fill(row, question)
        if not text.strip():
            raise ConfigError(f"{row.where}: the prompt is empty")
        return (*earlier, ("user", text))

    def _fill(self, row: Row, question: str) -> str:
        metadata = row.columns.get("metadata")
        fields = {
            **(metadata if isinstance(metadata, dict) else {}),
            **row.columns,
            "question": question,
        }
        try:
            return self._format.vformat(self._config.prompt, (), fields)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            wrong = f"no field {error} here" if isinstance(error, LookupError) else error
            raise ConfigError(
                f"task.prompt = {self._config.prompt!r}: {row.where}: {wrong}; it has "
                f"{', '.join(sorted(fields))}"
            ) from error


class _Format(string.Formatter):
    """Format strings over text and numbers alone: of anything else Python would show its own
    notation.
    """

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(
                f"a field that the prompt names is {kind(value)}, not text or a number"
            )
        return super().convert_field(value, conversion)


def _names(template: str) -> set[str]:
    """Columns that a format string names."""
    found: set[str] = set()
    for _, field, spec, _ in string.Formatter().parse(template):
        if field is not None:
            found |= {field.partition(".")[0].partition("[")[0], *_names(spec or "")}
    return found


def _chat(where: str, messages: Sequence[Any]) -> list[Message]:
    """A list of chat messages, checked. Raises ConfigError naming the row and the message."""
    found = []
    for number, message in enumerate(messages, start=1):
        wrong = ""
        if not isinstance(message, dict):
            wrong = f"is {kind(message)}, not an object with role and content"
        elif message.keys() != {"role", "content"}:
            wrong = (
                f"has the fields {', '.join(message) or 'none'}; exactly role and content are "
                "understood"
            )
        elif message["role"] not in ROLES:
            wrong = f"has the role {message['role']!r}; there are {', '.join(ROLES)}"
        elif not isinstance(message["content"], str):
            wrong = f"has a content that is {kind(message['content'])}, not text"
        if wrong:
            raise ConfigError(f"{where}: question is a list whose item {number} {wrong}")
        found.append((message["role"], message["content"]))
    if not found or found[-1][0] != "user":
        raise ConfigError(
            f"{where}: question is a list of messages that does not end with the user's"
        )
    return found


def render(tokenizer: Any, prompts: Sequence[Sequence[Message]]) -> list[str]:
    """The text of each prompt by the chat template, with what begins the assistant's turn."""
    chats = [
        [{"role": role, "content": content} for role, content in messages] for messages in prompts
    ]
    texts: list[str] = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, tokenize=False
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


def encode(tokenizer: Any, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Token ids of each prompt: what `apply_chat_template` makes of them one by one, in a fraction
    of the time.
    """
    return tokenize(tokenizer, render(tokenizer, prompts))
