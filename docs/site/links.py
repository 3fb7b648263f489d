"""Links of Markdown pages work on GitHub and in the site: one that leaves docs/ leads to the
page that the site has of it, or to the file itself, shown as text.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from pages import OUTSIDE, ROOT

LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
NAMED = re.compile(r"\[(?:docs/)?([\w/-]+)\.md\]\(")
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "bash", ".yaml": "yaml", ".lua": "lua"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside docs/ that some page links to."""
    wanted: set[str] = set()
    for file in files.documentation_pages():
        for _, target, _ in LINK.findall(file.content_string):
            place = _in_repository(file.src_uri, target)
            if place and _in_site(place).startswith("source/"):
                wanted.add(place)
    for place in sorted(wanted):
        page = "\n".join([f"# {place}", *_shown(ROOT / place)])
        files.append(
            File.generated(
                config, _in_site(place), content=page, inclusion=InclusionLevel.NOT_IN_NAV
            )
        )
    return files


def _shown(place: Path) -> list[str]:
    """A file as text; of a folder every file, one after the other."""
    if place.is_dir():
        parts = sorted(path for path in place.iterdir() if path.is_file())
        return [line for path in parts for line in (f"## {path.name}", *_shown(path))]
    text = place.read_text(encoding="utf-8")
    return ["", f"````{LANGUAGES.get(place.suffix, 'text')}", text, "````", ""]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links as the site has them."""
    return rewritten(markdown, page.file.src_uri)


def rewritten(markdown: str, page: str) -> str:
    """`page` is its place in the site. Links to what is not a file here are left as they are; a
    text that is the name of a page loses its `.md`.
    """

    def replaced(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        place = _in_repository(page, target)
        if not place:
            return match.group()
        return f"{before}{os.path.relpath(_in_site(place), os.path.dirname(page))}{after}"

    return LINK.sub(replaced, NAMED.sub(r"[\1](", markdown))


def _in_repository(page: str, target: str) -> str:
    """The file that a link means, from the repository's root; empty if there is none."""
    source = OUTSIDE.get(page, f"docs/{page}")
    place = os.path.normpath(os.path.join(os.path.dirname(source), target))
    if (ROOT / place / "README.md").is_file():
        place = f"{place}/README.md"
    return place if not place.startswith("..") and (ROOT / place).exists() else ""


def _in_site(place: str) -> str:
    for page, source in OUTSIDE.items():
        if source == place:
            return page
    if not place.startswith("docs/"):
        return f"source/{place}.md"
    folder = "/index.md" if (ROOT / place).is_dir() else ""
    return place.removeprefix("docs/").replace(".ipynb", ".md") + folder
