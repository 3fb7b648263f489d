"""Whatever the documentation tells a reader to type exists: commands, options, presets, settings,
targets of make.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from sppo import config as settings
from sppo.config import names
from sppo.errors import ConfigError
from tests import command_blocks, docs

HISTORY = re.compile(r"CHANGELOG|docs/adr/")
"""What was, under the names of its time."""
PAGES = [page for page in docs.pages() if not HISTORY.search(page)]
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
        except (KeyError, click.ClickException, ConfigError) as error:
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
def test_settings_in_sentences_exist(page: str) -> None:
    wrong = []
    for name in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", docs.read(page)):
        section = name.partition(".")[0]
        ours = section in names.sections() and not NO_SETTINGS.search(name)
        known = [key for key in names.fields() if f"{key}.".startswith(f"{name}.")]
        if ours and names.setting(name) not in names.fields() and not known:
            wrong.append(name)
    assert wrong == []
