"""Rubric and template: what is put in, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.errors import ConfigError, ScorerRefused
from sppo.scorer.judge.prompts import Prompts
from sppo.types import ScoreRequest

GROUP = ScoreRequest(
    uid="train-1", question="Why {first}?", completions=["x", "y"],
    data={"answer": "42", "tags": ["a", 1], "first": "a column"},
)  # fmt: skip


def written(folder: Path, text: str, name: str = "file.txt") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_our_rubrics_hold_what_they_are_given_once() -> None:
    (message,) = Prompts("pairwise").messages(GROUP, first="<one>", second="{second}")
    assert message["role"] == "user"
    for text in ("Why {first}?", "[Answer A]\n<one>\n", "[Answer B]\n{second}\n"):
        assert message["content"].count(text) == 1
    (message,) = Prompts("rating").messages(GROUP, completion="<one>")
    assert "[Answer]\n<one>\n" in message["content"]


def test_a_rubric_has_columns_of_the_row_and_words_in_braces(tmp_path: Path) -> None:
    rubric = written(
        tmp_path, "{question} | {first} | {second} | {answer} {tags} {{answer}} {} {0}"
    )
    (message,) = Prompts("pairwise", rubric=rubric).messages(GROUP, first="a", second="b")
    assert message["content"] == 'Why {first}? | a | b | 42 ["a", 1] {answer} {} {0}'


def test_what_came_before_the_question_is_shown() -> None:
    turns = (("system", "Be brief."), ("user", "Why {first}?"))
    request = ScoreRequest(
        uid="u", question="Why {first}?", completions=["x"], data={}, messages=turns
    )
    (message,) = Prompts("rating").messages(request, completion="x")
    assert "system: Be brief.\n\nuser: Why {first}?" in message["content"]


def test_a_template_puts_the_rubric_among_messages(tmp_path: Path) -> None:
    template = written(
        tmp_path,
        '[{"role": "system", "content": "You judge."}, {"role": "user", "content": "> {rubric}"}]',
    )
    system, user = Prompts("rating", template=template).messages(GROUP, completion="x{rubric}")
    assert system == {"role": "system", "content": "You judge."}
    assert user["content"].startswith("> An answer")
    assert "x{rubric}" in user["content"]


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        ("pairwise", "Which is better?", r"has no \{question\}, \{first\}, \{second\}; with"),
        ("pairwise", "{question} {{first}} {second}", r"has no \{first\}; with"),
        ("rating", "{question} {first} {second}", r"has no \{completion\}; with scorer.judge.mode"),
        ("pairwise", " \n", "is empty"),
    ],
)
def test_a_rubric_without_its_places_is_refused(
    tmp_path: Path, mode: str, text: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Prompts(mode, rubric=written(tmp_path, text))  # type: ignore[arg-type]
    assert "scorer.judge.rubric = '" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{rubric}", "is no JSON"),
        ('[{"role": "user"}]', "is no list of chat messages"),
        ('{"role": "user", "content": "{rubric}"}', "is no list of chat messages"),
        ('[{"role": "user", "content": "which?"}]', r"has no \{rubric\}"),
    ],
)
def test_a_template_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Prompts("pairwise", template=written(tmp_path, text))
    assert "scorer.judge.template = '" in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rubric = 'gone.txt' cannot be read: No such file"):
        Prompts("pairwise", rubric="gone.txt")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match="not UTF-8: byte 0xe9"):
        Prompts("pairwise", rubric=str(tmp_path / "latin"))


def test_a_column_that_the_row_has_not_is_named_with_those_there(tmp_path: Path) -> None:
    prompts = Prompts("rating", rubric=written(tmp_path, "{question} {completion} {gold}"))
    with pytest.raises(ScorerRefused, match=r"\{gold\} is no column .* has answer, first, tags"):
        prompts.messages(GROUP, completion="x")
