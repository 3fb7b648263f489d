"""Each atomic step says what it is given, and uses that."""

from __future__ import annotations

import re

import pytest

from sppo.transport import scripts
from sppo.transport.scripts import KEYS, Script

GIVEN = {"waiting", "frame"}
"""Keys that differ from call to call."""


def body(script: Script) -> str:
    """Without its first lines and remarks."""
    lines = script.source.splitlines()
    return "\n".join(
        line.split("--")[0] for line in lines if "unpack(" not in line and line[:2] != "#!"
    )


@pytest.mark.parametrize("script", scripts.load(), ids=lambda script: script.name)
def test_a_script_uses_what_its_first_lines_name_and_nothing_else(script: Script) -> None:
    # Given the names of its keys and arguments
    names = [*script.keys, *script.arguments]
    assert len(set(names)) == len(names)
    assert {key for key in script.keys if key not in KEYS} <= GIVEN
    assert not {name for name in script.arguments if name in KEYS.keys() | GIVEN}
    # Then the rest of it needs every one of them, and no other
    text = body(script)
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
    assert not re.search(r"\b(KEYS|ARGV)\b", text)


def test_names_become_keys_and_arguments_in_the_order_of_the_script() -> None:
    script = Script.read(
        "x", "-- A step.\nlocal epoch, frame = unpack(KEYS)\nlocal mine, uid = unpack(ARGV)\n"
    )
    found = script.order({"uid": "u", "frame": "b:g", "mine": "a"})
    assert found == (["epoch", "b:g"], ["a", "u"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"uid": "u"}, r"release.lua: missing \['waiting'\], unknown \[\]"),
        ({"uid": "u", "waiting": "todo", "gid": "g"}, r"missing \[\], unknown \['gid'\]"),
    ],
)
def test_a_name_that_is_missing_or_unknown_is_refused(given: dict[str, str], words: str) -> None:
    release = next(script for script in scripts.load() if script.name == "release")
    with pytest.raises(TypeError, match=words):
        release.order(given)
