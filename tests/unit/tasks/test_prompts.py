"""Prompts from rows: only text and numbers are filled in, chat messages are kept, nothing is
Python's notation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sppo.config import TaskConfig
from sppo.errors import ConfigError
from sppo.tasks.prompts import Prompt, PromptMaker
from sppo.tasks.rows import Row, Unusable

USER = {"role": "user", "content": "u"}
SYSTEM = {"role": "system", "content": "s"}
ASSISTANT = {"role": "assistant", "content": "a"}


def prompt(task: dict[str, Any], **columns: Any) -> Prompt:
    row = Row(where="q.jsonl:7", columns={"question": "q", "answer": "a"} | columns)
    return PromptMaker(TaskConfig(**task)).prompt(row)


def test_fields_are_columns_and_what_metadata_holds() -> None:
    metadata = {"level": 3, "question": "another", "tags": ["x"]}
    found = prompt({"prompt": "{level} {tags[0]} {question} {{}}"}, metadata=metadata)
    assert found.messages == (("user", "3 x q {}"),)


def test_all_turns_of_a_chat_are_kept() -> None:
    found = prompt({"messages": "chat"}, chat=[SYSTEM, USER, ASSISTANT, USER])
    assert found.messages == (("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "u"))


def test_system_and_examples_stand_before_the_prompt(tmp_path: Path) -> None:
    file = tmp_path / "shots.json"
    file.write_text(json.dumps([USER, ASSISTANT]), encoding="utf-8")
    task = {"system": "Be brief.", "few_shot": str(file)}
    shots = (("user", "u"), ("assistant", "a"))
    assert prompt(task).messages == (("system", "Be brief."), *shots, ("user", "q"))
    # A row's own system message stays, and first.
    found = prompt(task | {"messages": "chat"}, chat=[SYSTEM, USER])
    assert found.messages == (("system", "s"), *shots, ("user", "u"))


def test_the_split_sees_what_the_row_asks_and_not_the_words_around_it(tmp_path: Path) -> None:
    file = tmp_path / "shots.json"
    file.write_text(json.dumps([USER, ASSISTANT]), encoding="utf-8")
    around = {"system": "Be brief.", "few_shot": str(file)}
    assert prompt({"prompt": "{question} Briefly."} | around).source == "q"
    assert prompt({"prompt": "{problem} Briefly."}, problem="p").source == "p"
    assert prompt({"prompt": "{context} {question}"} | around, context="c").source == "c q"
    assert prompt({"messages": "chat"} | around, chat=[USER]).source == "u"
    turns = [USER, ASSISTANT, USER]
    assert "assistant" in prompt({"messages": "chat"}, chat=turns).source


@pytest.mark.parametrize(
    ("chat", "words"),
    [
        ([], "does not end with the user's"),
        ([USER, ASSISTANT], "does not end with the user's"),
        ("u", "column 'chat' is text, not a list of chat messages"),
        (["u"], "column 'chat' is a list whose item 1 is text"),
        ([{"role": "user", "content": " \n"}], "the prompt is empty"),
    ],
)
def test_a_column_that_is_no_prompt_is_said(chat: Any, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        prompt({"messages": "chat"}, chat=chat)


def test_a_column_of_messages_that_is_missing_is_said() -> None:
    with pytest.raises(Unusable, match=r"no column 'chat' \(task\.messages\); there are question"):
        prompt({"messages": "chat"})


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{context} {question}", "context is null, not text or a number"),
        ("{tags} {question}", "tags is a list"),
        ("{tags!r} {question}", "tags is a list"),
        ("{flag} {question}", "flag is true or false"),
        ("{question.__class__}", "is an object"),
        ("{chat}", r"chat is a list, .*task\.messages = 'chat'"),
        ("{nope} {question}", "no column 'nope'; there are answer, blank, chat, context, flag,"),
        ("{blank}", "the prompt is empty"),
    ],
)
def test_a_field_that_is_no_text_is_never_filled_in(template: str, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        prompt({"prompt": template}, context=None, tags=["x"], flag=True, chat=[USER], blank=" \n")


@pytest.mark.parametrize(
    ("template", "words"),
    [("{} {question}", "name the field in braces"), ("{question", "write a brace itself as")],
)
def test_a_prompt_that_is_no_format_string_is_refused(template: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"task\.prompt = .*{words}"):
        prompt({"prompt": template})
