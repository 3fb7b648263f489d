"""What a judge is asked: a rubric, which is a text with places in braces, inside a template of chat
messages.

`{question}`, `{first}` and `{second}`, or `{completion}`, are ours; any other word in braces is a
column of the row. `{{word}}` is written as `{word}`. What is put in is not looked at again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from sppo import strict_json
from sppo.config import utf8
from sppo.errors import ConfigError, ScorerRefused
from sppo.types import ScoreRequest

Mode = Literal["pairwise", "rating"]
Messages = list[dict[str, str]]

NEEDED: Mapping[Mode, tuple[str, ...]] = {
    "pairwise": ("question", "first", "second"),
    "rating": ("question", "completion"),
}
_PLACE = re.compile(r"\{\{(\w+)\}\}|\{([A-Za-z_]\w*)\}")


class Prompts:
    """The questions of one judge.

    prompts = Prompts("pairwise", rubric="my-rubric.txt")
    messages = prompts.messages(request, first="...", second="...")
    """

    def __init__(self, mode: Mode, *, rubric: str = "", template: str = "") -> None:
        """Of files, or ours where a name is empty. Raises ConfigError for one that cannot be
        used.
        """
        self._rubric = _rubric(mode, rubric)
        self._template = _template(template)

    def messages(self, request: ScoreRequest, **texts: str) -> Messages:
        """The chat to send about `first` and `second`, or `completion`.

        Raises ScorerRefused if the rubric names a column that the row has not.
        """
        rubric = _fill(self._rubric, {"question": _asked(request), **texts}, request.data)
        return [
            {"role": m["role"], "content": m["content"].replace("{rubric}", rubric)}
            for m in self._template
        ]


def _rubric(mode: Mode, name: str) -> str:
    if not name:
        return (resources.files(__package__) / f"{mode}.txt").read_text(encoding="utf-8").strip()
    text, where = _read("rubric", name)
    there = {match[2] for match in _PLACE.finditer(text)}
    if lacking := [f"{{{place}}}" for place in NEEDED[mode] if place not in there]:
        raise ConfigError(
            f"{where} has no {', '.join(lacking)}; with scorer.judge.mode = {mode!r} a rubric "
            f"holds {', '.join(f'{{{place}}}' for place in NEEDED[mode])}"
        )
    return text


def _template(name: str) -> Messages:
    if not name:
        return [{"role": "user", "content": "{rubric}"}]
    text, where = _read("template", name)
    mend = 'write a list of messages such as [{"role": "user", "content": "{rubric}"}]'
    try:
        found = strict_json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where} is no JSON ({error}); {mend}") from error
    if not isinstance(found, list) or not all(_is_message(m) for m in found):
        raise ConfigError(f"{where} is no list of chat messages; {mend}")
    if not any("{rubric}" in m["content"] for m in found):
        raise ConfigError(f"{where} has no {{rubric}}; {mend}")
    return found


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"role", "content"}
        and all(isinstance(text, str) for text in value.values())
    )


def _read(setting: str, name: str) -> tuple[str, str]:
    """The text of a file, and how to name it."""
    where = f"scorer.judge.{setting} = {name!r}"
    try:
        text = utf8(Path(name).read_bytes(), where).strip()
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from error
    if not text:
        raise ConfigError(f"{where} is empty")
    return text, where


def _fill(text: str, ours: Mapping[str, str], row: Mapping[str, Any]) -> str:
    def put(match: re.Match[str]) -> str:
        if match[1]:
            return f"{{{match[1]}}}"
        if match[2] in ours:
            return ours[match[2]]
        if match[2] not in row:
            raise ScorerRefused(
                f"scorer.judge.rubric: {{{match[2]}}} is no column of the row, which has "
                f"{', '.join(sorted(row)) or 'none'}; write {{{{{match[2]}}}}} for the word in "
                "braces"
            )
        value = row[match[2]]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _PLACE.sub(put, text)


def _asked(request: ScoreRequest) -> str:
    """The question; the whole conversation where there is more of it."""
    messages: Sequence[tuple[str, str]] = request.messages
    if len(messages) < 2:
        return request.question
    return "\n\n".join(f"{role}: {content}" for role, content in messages)
