"""Text is UTF-8 whatever the locale: every file that the project opens as text says so."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def calls_without_encoding(source: str) -> list[int]:
    """Lines that open, read or write a text file in the locale's encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        modes = [
            a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        bare = isinstance(node.func, ast.Name) and len(node.args) == 1
        opens = name == "open" and (bare or any(set(mode) <= set("rwax+t") for mode in modes))
        if name in ("read_text", "write_text") or opens:
            found.append(node.lineno)
    return found


def test_the_search_finds_what_it_is_for() -> None:
    assert calls_without_encoding(
        'p.read_text()\np.open("a")\nopen(p, "w")\np.write_text(t)\nopen(p)\n'
    ) == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert (
        calls_without_encoding('p.read_text(encoding="utf-8")\np.open("wb")\np.open(5, 3.0)\n')
        == []
    )


def test_every_text_file_is_opened_as_utf_8() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for folder in ("sppo", "cli")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := calls_without_encoding(path.read_text(encoding="utf-8")))
    }
    assert not found
