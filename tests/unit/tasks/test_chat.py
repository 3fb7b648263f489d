"""Chat messages of a column, and the file of examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.tasks import chat
from sppo.tasks.rows import Unusable

USER = {"role": "user", "content": "u"}
ASSISTANT = {"role": "assistant", "content": "a"}


def test_fields_that_are_null_are_none() -> None:
    # A table has every field in every row.
    assert chat.read([USER | {"name": None}]) == [("user", "u")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is null, not a list"),
        ("u", "is text, not a list"),
        (["u"], "item 1 is text"),
        ([USER, {"role": "tool", "content": "t"}], "item 2 has the role 'tool'"),
        ([{"role": "user"}], "item 1 has the fields role"),
        ([USER | {"name": "n"}], "item 1 has the fields role, content, name"),
        ([{"role": "user", "content": None}], "item 1 has the fields role;"),
        ([{"role": "user", "content": [{"type": "text"}]}], "item 1 has a content that is a list"),
        ([{"role": ["user"], "content": "u"}], "item 1 has the role"),
    ],
)
def test_what_are_no_messages_is_said(value: Any, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        chat.read(value)


def test_examples_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "shots.json"
    file.write_text(json.dumps([USER, ASSISTANT] * 2), encoding="utf-8")
    assert chat.few_shot(str(file)) == (("user", "u"), ("assistant", "a")) * 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[", "not JSON at line 1"),
        (b"[]", "holds messages of nobody"),
        (json.dumps([USER]).encode(), "holds messages of user; write user and assistant in turn"),
        (json.dumps([ASSISTANT, USER]).encode(), "holds messages of assistant, user"),
        (
            json.dumps([{"role": "system", "content": "s"}, USER, ASSISTANT]).encode(),
            r"a system message is task\.system",
        ),
        (json.dumps([{"role": "user"}]).encode(), "item 1 has the fields role"),
        (b'["\xe9"]', "not UTF-8"),
        (b"[NaN]", "NaN"),
    ],
)
def test_a_file_without_examples_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "shots.json"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=rf"^task\.few_shot = .*{words}"):
        chat.few_shot(str(file))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.few_shot = .*no such file"):
        chat.few_shot(str(tmp_path / "none"))
