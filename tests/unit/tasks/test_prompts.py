"""Prompts from rows: only text and numbers are filled in, chat messages are kept, nothing is
Python's notation.
"""

from __future__ import annotations

from typing import Any

import pytest

from sppo.config import TaskConfig
from sppo.errors import ConfigError
from sppo.tasks.prompts import PromptMaker
from sppo.tasks.rows import Row

USER = {"role": "user", "content": "u"}


def messages(prompt: str = "{question}", **columns: Any) -> tuple[tuple[str, str], ...]:
    row = Row(where="q.jsonl:7", columns={"question": "q", "answer": "a"} | columns)
    return PromptMaker(TaskConfig(prompt=prompt)).messages(row)


def test_fields_are_columns_and_what_metadata_holds() -> None:
    metadata = {"level": 3, "question": "another", "tags": ["x"]}
    assert messages("{level} {tags[0]} {question} {{}}", metadata=metadata) == (
        ("user", "3 x q {}"),
    )


def test_all_turns_of_a_chat_are_kept() -> None:
    chat = [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "a"}, USER]
    assert messages(question=chat) == (
        ("system", "s"),
        ("user", "u"),
        ("assistant", "a"),
        ("user", "u"),
    )


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (None, "question is null"),
        (5, "question is a number"),
        (True, "question is true or false"),
        ({"a": 1}, "question is an object"),
        (" \n", "the prompt is empty"),
        ([], "does not end with the user's"),
        ([USER, {"role": "assistant", "content": "a"}], "does not end with the user's"),
        (["u"], "item 1 is text"),
        ([USER, {"role": "tool", "content": "t"}], "item 2 has the role 'tool'"),
        ([{"role": "user"}], "item 1 has the fields role"),
        ([USER | {"name": "n"}], "item 1 has the fields role, content, name"),
        ([{"role": "user", "content": None}], "item 1 has a content that is null"),
        ([{"role": "user", "content": [{"type": "text"}]}], "item 1 has a content that is a list"),
        ([{"role": ["user"], "content": "u"}], "item 1 has the role"),
    ],
)
def test_a_question_that_is_no_prompt_is_refused_with_its_row(question: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"q\.jsonl:7: .*{words}"):
        messages(question=question)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("{context} {question}", r"q\.jsonl:7: a field that the prompt names is null"),
        ("{tags} {question}", "is a list"),
        ("{tags!r} {question}", "is a list"),
        ("{flag} {question}", "is true or false"),
        ("{question.__class__}", "is an object"),
        (
            "{nope} {question}",
            r"q\.jsonl:7: no field 'nope' here; it has answer, context, flag, question, tags",
        ),
        ("{} {question}", "name the field in braces"),
        ("{question", "write a brace itself as"),
    ],
)
def test_a_field_that_is_no_text_is_never_filled_in(prompt: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        messages(prompt, context=None, tags=["x"], flag=True)
