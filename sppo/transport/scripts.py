"""The atomic steps in `lua/`, each with what it asks for by name.

A script begins with what it is given, and that order is written there alone:

    local lease, waiting, tickets = unpack(KEYS)
    local uid = unpack(ARGV)

Callers pass values by these names; the keys in `KEYS` need not be passed.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEYS = {
    "epoch": "epoch",
    "before": "epoch:before",
    "queue": "q",
    "bytes": "bytes",
    "state": "state",
    "tickets": "tickets",
    "minv": "minv",
    "todo": "todo",
    "todo_eval": "todo:eval",
    "lease": "lease",
    "attempts": "attempts",
    "failures": "failures",
    "dead": "dead",
}
"""Keys that a run has one of: in the scripts, and on the server below the run's prefix."""
WAITING = {"train": "todo", "eval": "todo:eval"}
"""Where the tickets of each stream wait: what scripts call `waiting`."""

_GIVEN = re.compile(r"^local (.+) = unpack\((KEYS|ARGV)\)$", re.MULTILINE)


def frame_key(gid: str) -> str:
    """Where a group's frame is."""
    return f"b:{gid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One step and the names of what it is given, in its order."""

    name: str
    source: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]

    @classmethod
    def read(cls, name: str, source: str) -> Script:
        """A script with what its first lines name."""
        given = {kind: tuple(names.split(", ")) for names, kind in _GIVEN.findall(source)}
        return cls(name=name, source=source, keys=given["KEYS"], arguments=given["ARGV"])

    def order(self, given: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        """Keys, without the run's prefix, and arguments. Raises TypeError for a name that is
        missing or unknown.
        """
        values = {k: KEYS[k] for k in self.keys if k in KEYS} | dict(given)
        asked = {*self.keys, *self.arguments}
        if values.keys() != asked:
            missing, unknown = sorted(asked - values.keys()), sorted(values.keys() - asked)
            raise TypeError(f"{self.name}.lua: missing {missing}, unknown {unknown}")
        return [values[k] for k in self.keys], [values[k] for k in self.arguments]


def load() -> list[Script]:
    """Every script, by name."""
    folder = importlib.resources.files("sppo.transport").joinpath("lua")
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return [
        Script.read(file.name.removesuffix(".lua"), file.read_text(encoding="utf-8"))
        for file in files
    ]
