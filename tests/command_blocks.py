"""The commands that the documentation shows, held against the command line itself."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer
from sppo_cli.commands import app

from sppo import config as settings
from sppo.config import names
from tests import docs

TAKES_CONFIG = ("up", "plan", "learner", "generator", "scorer", "broker", "chaos", "show", "diff")
"""Commands whose arguments are presets or files."""
PLACEHOLDER = re.compile(r"\.\.\.|…")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A command of ours in a block."""

    place: str
    """`page:line`."""
    words: list[str]
    """Without `sppo-cli`."""

    @property
    def name(self) -> str:
        """Such as `bench loop`."""
        command, _ = find(self.words)
        return command


def ours(page: str) -> Iterator[Shown]:
    """The commands of ours in a page's blocks, but for those that `...` shortens."""
    for block in docs.blocks(page):
        for line, words in docs.commands(block):
            if words[0] == "sppo-cli" and not any(map(PLACEHOLDER.search, words)):
                yield Shown(place=f"{page}:{line}", words=words[1:])


@cache
def whole() -> Any:
    """`sppo-cli`, as click has it."""
    return typer.main.get_command(app)


def find(words: list[str]) -> tuple[str, Any]:
    """The command that the first words name. Raises KeyError if there is none."""
    command = whole()
    path = []
    for word in words:
        if not getattr(command, "commands", None):
            break
        command = command.commands[word]
        path.append(word)
    return " ".join(path), command


def parse(words: list[str]) -> dict[str, Any]:
    """What the command gets. Raises UsageError for what it does not know."""
    name, command = find(words)
    rest = words[len(name.split()) :]
    context = command.make_context(name, list(rest))
    parameters: dict[str, Any] = context.params
    return parameters


def options(words: list[str]) -> set[str]:
    """The options of a command."""
    _, command = find(words)
    return {each for parameter in command.params for each in parameter.opts} | {"--help"}


def loads(shown: Shown, folder: Path) -> None:
    """Loads the configuration that the command names, if it does. Raises ConfigError."""
    given = parse(shown.words)
    if shown.name.split()[-1] not in TAKES_CONFIG:
        for each in given.get("set_") or []:
            assert names.setting(each.partition("=")[0]) in names.fields(), each
        return
    sources = [given[name] for name in ("config", "source", "target", "a", "b") if given.get(name)]
    for source in sources or [""]:
        place = folder / source
        settings.load(str(place) if place.exists() else source, list(given.get("set_") or []))


def spans(page: str) -> list[str]:
    """What code spans say of commands of ours, without `sppo-cli`."""
    return re.findall(r"`(?:[A-Z_]+=\S+ )?sppo-cli ([^`]+)`", docs.read(page).replace("\n", " "))


def module_exists(name: str) -> bool:
    """Of another's package only whether it is there: looking further would import it."""
    top = name.partition(".")[0]
    found = importlib.util.find_spec(name if (docs.ROOT / top).is_dir() else top)
    return found is not None


def paths() -> list[str]:
    """Every command that does something, such as `bench loop`."""

    def inside(command: Any, path: str) -> Iterator[str]:
        found = getattr(command, "commands", None) or {}
        if path and not found:
            yield path
        for name, each in found.items():
            yield from inside(each, f"{path} {name}".strip())

    return list(inside(whole(), ""))


def examples(path: str) -> list[str]:
    """What the end of a command's help shows, without `sppo-cli`."""
    _, command = find(path.split())
    said = re.sub(r"^Examples?: ", "", command.epilog or "")
    shown = [re.sub(r"^([A-Z_]+=\S+ )*sppo-cli ", "", each) for each in said.split(" | ")]
    return [each for each in shown if each]
