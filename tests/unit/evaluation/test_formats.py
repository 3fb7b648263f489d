"""Files of answers as others read them, and what is read here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.evaluation import formats
from sppo.types import Answer
from tests import makers

TICKETS = [
    makers.ticket("eval-0", question="2 + 2?", scorer_data={"uid": "ab12", "dataset": "koala"}),
    makers.ticket("eval-1", question="Who?", messages=(("user", "Who?"),), scorer_data={}),
]
TEXT = "# Title\n\n1. **bold** __too__\n- one\n```\n# no title\n```\n"
ANSWERS = [
    [Answer(token_ids=(1, 2, 3), text="4", finish_reason="stop")],
    [Answer(token_ids=(1,) * 9, text=TEXT, finish_reason="length")],
]


class Tokenizer:
    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(c) for c in text] for text in texts]}


def test_alpaca_eval_reads_instruction_output_generator_and_dataset() -> None:
    found = json.loads(formats.alpaca_eval(TICKETS, ANSWERS, "ours", "gsm8k"))
    assert found == [
        {"instruction": "2 + 2?", "output": "4", "generator": "ours", "dataset": "koala"},
        {"instruction": "Who?", "output": TEXT, "generator": "ours", "dataset": "gsm8k"},
    ]


def test_arena_hard_reads_uid_messages_and_what_style_control_counts() -> None:
    lines = formats.arena_hard(TICKETS, ANSWERS, "ours", "").splitlines()
    first, second = (json.loads(line) for line in lines)
    assert (first["uid"], first["model"]) == ("ab12", "ours")
    assert first["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "what is 1 + 1?"},
        {"role": "assistant", "content": {"answer": "4"}},
    ]
    assert first["metadata"]["token_len"] == 3
    assert first["ans_id"] != second["ans_id"]
    assert second["uid"]
    counted = second["metadata"]
    assert counted["header_count"] == {"h1": 1, "h2": 0, "h3": 0, "h4": 0, "h5": 0, "h6": 0}
    assert counted["list_count"] == {"ordered": 1, "unordered": 1}
    assert counted["bold_count"] == {"**": 1, "__": 1}


@pytest.mark.parametrize("name", formats.FORMATS)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "answers"
    tickets = [
        makers.ticket(f"eval-{i}", question=text, messages=(("user", text),))
        for i, text in enumerate(("2 + 2?", "Who?"))
    ]
    path.write_text(formats.FORMATS[name](tickets, ANSWERS, "ours", "gsm8k"))
    found = formats.read(path, tickets[::-1], Tokenizer())
    assert [[a.text for a in each] for each in found] == [[TEXT], ["4"]]
    assert found[1][0].token_ids == (ord("4"),)


def test_several_answers_to_a_question_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "Who?", "completions": ["I", "You"]}\n\n')
    (found,) = formats.read(path, TICKETS[1:], Tokenizer())
    assert [a.text for a in found] == ["I", "You"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "2 + 2?", "answer": "4"}', r"no answer to 1 of 2 questions; .* 'Who\?'"),
        ("{", r"a.jsonl:1: not JSON"),
        ("[1, 2", "not JSON"),
        ("[1]", "item 1: expected an object"),
        ('{"answer": "4"}', "a.jsonl:1: no question: name it question or instruction"),
        ('{"question": "Who?"}', "a.jsonl:1: no answer: name it output or answer"),
        ('{"question": "Who?", "answer": 4}', "no answer"),
        (
            '{"prompt": "Who?", "answer": "I"}\n{"prompt": "Who?", "answer": "You"}',
            "a.jsonl:2: another answer to the same question",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        formats.read(path, TICKETS, Tokenizer())
