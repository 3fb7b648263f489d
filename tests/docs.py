"""The Markdown pages of the project, their links and their blocks of code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$")
FENCE = re.compile(r"^(`{3,})([\w-]*) *$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code of a page."""

    page: str
    line: int
    """Of its first line, from 1."""
    language: str
    """Empty where the page says none, and of an indented block."""
    text: str


def pages() -> list[str]:
    """Every page that a reader is led to, from the repository's root."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    found += (ROOT / "examples").rglob("*.md")
    return sorted(str(path.relative_to(ROOT)) for path in found)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Fenced blocks, and paragraphs that are indented by four and stand by themselves."""
    lines = read(page).split("\n")
    found: list[Block] = []
    i = 0
    while i < len(lines):
        fence = FENCE.match(lines[i])
        if fence:
            end = next(j for j in range(i + 1, len(lines)) if lines[j] == fence.group(1))
            text = "\n".join(lines[i + 1 : end])
            found.append(Block(page=page, line=i + 2, language=fence.group(2), text=text))
            i = end
        elif lines[i].startswith("    ") and i and not lines[i - 1].strip():
            end = i
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            text = "\n".join(line[4:] for line in lines[i:end])
            found.append(Block(page=page, line=i + 1, language="", text=text))
            i = end
        i += 1
    return found


def prose(page: str) -> str:
    """The page without blocks and code spans."""
    text = read(page)
    text = re.sub(r"^(`{3,})[^\n]*\n.*?^\1 *$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def links(page: str) -> list[str]:
    """Where the page's links lead, as written."""
    return LINK.findall(prose(page))


def anchors(page: str) -> set[str]:
    """The names of the page's headings, as GitHub makes them."""
    text = re.sub(r"^(`{3,})[^\n]*\n.*?^\1 *$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for line in text.split("\n"):
        heading = HEADING.match(line)
        if heading:
            name = slug(heading.group(1))
            n = sum(
                other == name or re.fullmatch(re.escape(name) + r"-\d+", other) is not None
                for other in found
            )
            found.add(f"{name}-{n}" if n else name)
    return found


def slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The commands of a block that is a shell's, with their lines: words, without what is
    set before them, comments and `&`.
    """
    line = block.line
    for whole in _joined(block.text):
        number, line = line, line + whole.count("\n") + 1
        text = whole.replace("\\\n", " ").removeprefix("$ ").strip()
        try:
            words = shlex.split(text, comments=True)
        except ValueError:
            continue  # not a shell's
        while words and re.match(r"^[A-Z_]+=", words[0]):
            words = words[1:]
        if words and words[-1] == "&":
            words = words[:-1]
        if words:
            yield number, words


def _joined(text: str) -> list[str]:
    whole: list[str] = []
    for line in text.split("\n"):
        if whole and whole[-1].endswith("\\"):
            whole[-1] += "\n" + line
        else:
            whole.append(line)
    return whole
