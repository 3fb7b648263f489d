"""Whatever the documentation tells a reader to type exists: commands, options, presets, settings,
targets of make.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sppo import config as settings
from sppo.config import names
from sppo.scorer.base import checked
from sppo.types import ScoreRequest
from tests import command_blocks, docs

HISTORY = re.compile(r"CHANGELOG|docs/adr/")
"""What was, under the names of its time."""
PAGES = [page for page in docs.pages() if not HISTORY.search(page)]
KNOWN, TABLES = names.keys(), names.tables()
NO_SETTINGS = re.compile(r"\.(py|toml|md|json|jsonl|log|sh|pt|db|csv|html|parquet|yaml)$")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader of the README stands: with its configuration."""
    shown = next(block for block in docs.blocks("README.md") if block.language == "toml")
    (tmp_path / "my.toml").write_text(shown.text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_blocks_are_parsed_and_their_settings_load(page: str, folder: Path) -> None:
    for shown in command_blocks.ours(page):
        try:
            command_blocks.loads(shown, folder)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, where it is belongs to it
            pytest.fail(f"{shown.place}: sppo-cli {' '.join(shown.words)}: {error}")


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_exist_with_their_options(page: str) -> None:
    wrong = []
    for span in command_blocks.spans(page):
        words = re.sub(r"[\[\]|]", " ", span).split()
        if words[0].startswith("-"):
            continue
        try:
            known = command_blocks.options(words)
        except KeyError:
            wrong.append(span)
            continue
        wrong += [
            f"{span}: {w}" for w in words if w.startswith("--") and w.split("=")[0] not in known
        ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_other_commands_name_what_is_there(page: str) -> None:
    makefile = docs.read("Makefile")
    wrong = []
    for block in docs.blocks(page):
        for line, words in docs.commands(block):
            if words[0] == "make" and not re.search(rf"^{words[1]}:", makefile, re.MULTILINE):
                wrong.append(f"{page}:{line}: make {words[1]}")
            if words[:2] == ["python", "-m"] and not command_blocks.module_exists(words[2]):
                wrong.append(f"{page}:{line}: python -m {words[2]}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_settings_load(page: str, tmp_path: Path) -> None:
    for block in docs.blocks(page):
        if block.language != "toml" and not block.text.startswith("["):
            continue
        try:
            tomllib.loads(block.text)
        except tomllib.TOMLDecodeError:
            assert block.language != "toml", f"{page}:{block.line}"
            continue
        (tmp_path / "shown.toml").write_text(block.text, encoding="utf-8")
        settings.load(str(tmp_path / "shown.toml"), [])


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_python_are_python_and_their_scorers_score(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my_reward", "my_scorer"):  # what a reader has
        theirs = types.ModuleType(name)
        theirs.compute_score = lambda *_: 1.0  # type: ignore[attr-defined]
        theirs.my_reward = lambda prompts, **_: [1.0] * len(prompts)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, theirs)
    request = ScoreRequest(
        uid="a",
        question="What is 6 × 7?",
        completions=["42", "no idea"],
        data={"answer": "42", "data_source": "", "extra_info": ""},
    )
    for block in docs.blocks(page):
        if block.language != "python":
            continue
        module = ast.parse(block.text)
        if not any(isinstance(node, ast.FunctionDef) for node in module.body):
            continue
        space: dict[str, Any] = {"Any": Any, "Mapping": Mapping, "Sequence": Sequence}
        exec(compile(module, f"{page}:{block.line}", "exec"), space)
        for function in (space["score"], space.get("shorter")):
            if function is not None:
                reply = function(request.question, request.completions, request.data)
                checked(page, request, reply)


@pytest.mark.parametrize("page", PAGES)
def test_settings_in_sentences_exist(page: str) -> None:
    wrong = []
    for name in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", docs.read(page)):
        section = name.partition(".")[0]
        ours = section in names.sections() and not NO_SETTINGS.search(name)
        inside = [key for key in KNOWN if f"{key}.".startswith(f"{name}.")]
        of_a_table = any(name.startswith(f"{table}.") for table in TABLES)
        if ours and not inside and not of_a_table:
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("path", command_blocks.paths())
def test_examples_of_help_are_parsed(path: str) -> None:
    for example in command_blocks.examples(path):
        if "..." not in example:
            command_blocks.parse(shlex.split(example.partition(" >")[0]))


@pytest.mark.parametrize(
    "words",
    [
        "no-such-command",
        "up quickstart --no-such-option",
        "up no-such-preset",
        "up quickstart --set learner.stepz=2",
        "bench judge labelled.jsonl --set scorer.judge.no_such=1",
        "samples runs/a --step first",
    ],
)
def test_mistakes_would_be_found(words: str, folder: Path) -> None:
    with pytest.raises(Exception, match=r".+"):
        command_blocks.loads(command_blocks.Shown(place="a:1", words=words.split()), folder)
