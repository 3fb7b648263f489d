"""The documentation's site: it builds without a warning, asks nothing of a network, and
leads everywhere in two clicks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs import ROOT

FETCHED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
}
"""What a browser fetches by itself."""
NAMED = ("canonical", "prev", "next")
"""Relations of a `link` that it does not."""
CLICKS = 2


@dataclass(slots=True)
class Page(HTMLParser):
    """One page of the site."""

    place: str
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"] or "")
        for name, value in attrs:
            if (tag, name) in FETCHED and given.get("rel") not in NAMED:
                self.fetched.append(value or "")


Site = dict[str, Page]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return place


@pytest.fixture(scope="module")
def site(folder: Path) -> Site:
    """Its pages by place."""
    found = {}
    for path in folder.rglob("*.html"):
        page = Page(str(path.relative_to(folder)))
        page.feed(path.read_text(encoding="utf-8"))
        found[page.place] = page
    return found


def target(page: Page, link: str) -> tuple[str, str] | None:
    """Place and anchor that an internal link means; None for one that leads out."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    place = os.path.normpath(os.path.join(os.path.dirname(page.place), unquote(parts.path)))
    return (place if parts.path else page.place), unquote(parts.fragment)


def test_every_link_leads_to_a_page_and_its_anchor(folder: Path, site: Site) -> None:
    wrong = []
    for page in site.values():
        for link in page.links if page.place != "404.html" else ():
            meant = target(page, link)
            if meant is None:
                continue
            place, anchor = meant
            known = site.get(place)
            if not (folder / place).exists() or (known and anchor and anchor not in known.anchors):
                wrong.append(f"{page.place}: {link}")
    assert len(site) > 80
    assert wrong == []


def test_pictures_and_scripts_are_the_sites_own(folder: Path, site: Site) -> None:
    wrong = []
    for page in site.values():
        for link in page.fetched if page.place != "404.html" else ():
            meant = target(page, link)
            if not link.startswith("data:") and (meant is None or not (folder / meant[0]).exists()):
                wrong.append(f"{page.place}: {link}")
    assert wrong == []


def test_every_page_is_two_clicks_from_the_start(site: Site) -> None:
    reached = {"index.html"}
    for _ in range(CLICKS):
        links = [target(site[place], link) for place in reached for link in site[place].links]
        reached |= {meant[0] for meant in links if meant and meant[0] in site}
    assert sorted(site.keys() - reached - {"404.html"}) == []
