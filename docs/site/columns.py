"""Docstrings as Markdown: lines that are laid out with spaces are shown as they stand, and
P[i][j] is no link.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

INDEXED = re.compile(r"(?<=\w)\]\[")
COLUMNS = re.compile(r"\S {2,}\S|[─│├└▶→]")


class Columns(griffe.Extension):
    """Indents paragraphs in which most lines have columns, which makes them code in Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = laid_out(obj.docstring.value)


def laid_out(text: str) -> str:
    """The text with its columns as code."""
    return "\n\n".join(_paragraph(each) for each in text.split("\n\n"))


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    if lines[0].startswith("    "):
        return text
    columns = sum(bool(COLUMNS.search(line.strip())) for line in lines)
    if columns * 2 < len(lines):
        return INDEXED.sub(r"]\\[", text)
    return "\n".join(f"    {line}" for line in lines)
