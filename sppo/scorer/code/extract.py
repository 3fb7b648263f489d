"""The program in a completion."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n`]*$", re.MULTILINE)


def program_of(text: str) -> str:
    """What the last fenced block holds, also one that the completion's end cut off; all of it where
    there is none.
    """
    blocks: list[str] = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2]:
            blocks.append(text[opened.end() : fence.start()])
            opened = None
    if opened is not None and (not blocks or opened[2]):
        blocks.append(text[opened.end() :])
    return (blocks[-1] if blocks else text).strip("\n") + "\n"
