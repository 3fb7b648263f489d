"""Files of answers: those that evaluations of others read, and what is read here.

`alpaca-eval`: a JSON list of {"instruction", "output", "generator", "dataset"}, as `alpaca_eval
--model_outputs` reads it. `arena-hard`: a line of JSON for each {"uid", "ans_id", "model",
"messages", "tstamp", "metadata"}, as arena-hard-auto 2.0 has it in `model_answer/<model>.jsonl`;
`uid` is the row's own column `uid` or `question_id`, which its judgments are looked up by.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sppo import strict_json
from sppo.config import utf8
from sppo.errors import ConfigError
from sppo.types import Answer, Ticket, digest

PROMPTS = ("question", "instruction", "prompt")
TEXTS = ("completions", "output", "answer", "completion", "response")


def alpaca_eval(
    tickets: Sequence[Ticket], answers: Sequence[Sequence[Answer]], model: str, dataset: str
) -> str:
    """The first answer to each."""
    rows = [
        {
            "instruction": ticket.question,
            "output": given[0].text,
            "generator": model,
            "dataset": str(ticket.scorer_data.get("dataset", dataset)),
        }
        for ticket, given in zip(tickets, answers, strict=True)
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def arena_hard(
    tickets: Sequence[Ticket], answers: Sequence[Sequence[Answer]], model: str, dataset: str
) -> str:
    """The first answer to each."""
    lines = []
    for ticket, given in zip(tickets, answers, strict=True):
        columns = ticket.scorer_data
        uid = columns.get("uid") or columns.get("question_id") or digest(ticket.question)
        messages: list[dict[str, Any]] = [
            {"role": role, "content": content} for role, content in ticket.messages
        ]
        messages.append({"role": "assistant", "content": {"answer": given[0].text}})
        row = {
            "uid": uid,
            "ans_id": digest(str(uid), model, given[0].text),
            "model": model,
            "messages": messages,
            "tstamp": time.time(),
            "metadata": {"token_len": len(given[0].token_ids)} | _markdown(given[0].text),
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


FORMATS = {"alpaca-eval": alpaca_eval, "arena-hard": arena_hard}


def _markdown(text: str) -> dict[str, dict[str, int]]:
    """What arena-hard-auto's style control counts, outside of code blocks."""
    plain = re.sub(r"```[^`]*```", "``````", text)

    def count(pattern: str) -> int:
        return len(re.findall(pattern, plain, re.MULTILINE))

    return {
        "header_count": {f"h{n}": count(rf"^#{{{n}}}\s") for n in range(1, 7)},
        "list_count": {"ordered": count(r"^\s*\d+\.\s"), "unordered": count(r"^\s*[-*+]\s")},
        "bold_count": {"**": count(r"\*\*[^*\n]+\*\*"), "__": count(r"__[^_\n]+__")},
    }


def read(path: Path, tickets: Sequence[Ticket], tokenizer: Any) -> list[list[Answer]]:
    """The answers that a file has to each of these tickets, by the text of the question.

    A JSON list or a line of JSON for each: the question in `question`, `instruction` or `prompt`,
    the answer in `output`, `answer`, `completion`, `response` or as a list in `completions`; or
    chat `messages` that end with the assistant's. Raises ConfigError naming what is wrong.
    """
    found: dict[str, list[str]] = {}
    for where, row in _rows(path):
        question, texts = _pair(where, row)
        if found.setdefault(question, texts) != texts:
            raise ConfigError(f"{where}: another answer to the same question stands before")
    missing = [ticket.question for ticket in tickets if ticket.question not in found]
    if missing:
        raise ConfigError(
            f"--against {path}: it has no answer to {len(missing)} of {len(tickets)} questions; "
            f"the first is {missing[0]!r:.200}"
        )
    return [[_answer(text, tokenizer) for text in found[t.question]] for t in tickets]


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = utf8(path.read_bytes(), str(path))
    try:
        rows = strict_json.loads(text) if text.lstrip().startswith("[") else None
    except ValueError as error:
        raise ConfigError(f"--against {path}: not JSON: {error}") from error
    lines = text.split("\n")
    numbered = enumerate(lines if rows is None else rows, start=1)
    for number, row in numbered:
        where = f"{path}:{number}" if rows is None else f"{path}, item {number}"
        if rows is None:
            if not row.strip():
                continue
            try:
                row = strict_json.loads(row)
            except ValueError as error:
                raise ConfigError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{where}: expected an object")
        yield where, row


def _pair(where: str, row: Mapping[str, Any]) -> tuple[str, list[str]]:
    """(question, answers) of a row."""
    question = next((row[key] for key in PROMPTS if isinstance(row.get(key), str)), None)
    given = next((row[key] for key in TEXTS if key in row), None)
    messages = row.get("messages")
    if isinstance(messages, list) and all(isinstance(m, dict) for m in messages):
        said = [m.get("content") for m in messages if m.get("role") == "user"]
        question = said[-1] if question is None and said else question
        if given is None and messages and messages[-1].get("role") == "assistant":
            given = messages[-1].get("content")
    if isinstance(given, dict):
        given = given.get("answer")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(question, str):
        raise ConfigError(f"{where}: no question: name it {' or '.join(PROMPTS)}, or messages")
    if not isinstance(texts, list) or not texts or any(not isinstance(t, str) for t in texts):
        raise ConfigError(f"{where}: no answer: name it {' or '.join(TEXTS[1:])}")
    return question, texts


def _answer(text: str, tokenizer: Any) -> Answer:
    ids = tokenizer([text], add_special_tokens=False)["input_ids"][0]
    return Answer(token_ids=tuple(int(i) for i in ids), text=text, finish_reason="stop")
