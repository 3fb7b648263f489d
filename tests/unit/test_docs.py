"""The documentation's pages: their links hold on GitHub as in the site, and none is forgotten."""

from __future__ import annotations

import os
import re

import pytest
import yaml

from sppo import config as settings
from tests import command_blocks, docs

ROOT = docs.ROOT
SITE = "mkdocs.yml"


class Loader(yaml.SafeLoader):
    """Reads the site's settings without running what they name."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def navigation() -> list[str]:
    """The pages that the site's navigation names, with `*` written out."""
    settings = yaml.load((ROOT / SITE).read_text(encoding="utf-8"), Loader=Loader)
    named = [entry for section in settings["nav"] for part in section.values() for entry in part]
    found: list[str] = []
    for entry in named:
        inside = sorted((ROOT / "docs").glob(entry)) if "*" in entry else []
        found += [str(path.relative_to(ROOT / "docs")) for path in inside] or [entry]
    return found


def test_every_page_of_docs_is_in_the_sites_navigation_once() -> None:
    named = navigation()
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(pages - set(named)) == []
    assert len(named) == len(set(named))


def test_the_readme_is_short() -> None:
    assert len(docs.read("README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", docs.pages())
def test_links_lead_somewhere(page: str) -> None:
    wrong = []
    for link in docs.links(page):
        if re.match(r"^[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        place = os.path.normpath(os.path.join(os.path.dirname(page), target)) if target else page
        if not (ROOT / place).exists() or (
            anchor and place.endswith(".md") and anchor not in docs.anchors(place)
        ):
            wrong.append(link)
    assert wrong == []


def test_headings_are_named_as_github_names_them() -> None:
    assert (
        docs.slug("1. Choose by the GPUs that are there") == "1-choose-by-the-gpus-that-are-there"
    )
    assert (
        docs.slug("Which game is played (`objective.name`)") == "which-game-is-played-objectivename"
    )
    assert docs.slug("`boxed-answer` and `exact-match`") == "boxed-answer-and-exact-match"


def test_every_command_and_every_preset_has_its_line() -> None:
    commands, presets = docs.read("docs/commands.md"), docs.read("docs/presets.md")
    for path in command_blocks.paths():
        assert re.search(rf"(sppo-cli |`){path}\b", commands), path
    for name in settings.presets():
        assert f"`{name}`" in presets, name
