"""Which checkpoints there are, and whether their files are what was written: sizes and checksums,
without torch.

    RUN/checkpoints/step-000020-<epoch>/manifest.json    other files' names to {"bytes", "xxh3_128"}

A disk, a copy that broke off or a person may damage what was written whole; that is found before it
is trained on.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from sppo.errors import ConfigError

NAME = "manifest.json"
STATE = "state.json"
FORMAT = 4
WHOLE = 3
"""The format before: one file of each kind, whatever the number of ranks."""
UNVERIFIED = 2
"""And before that: without a manifest."""
_FOLDER = re.compile(r"step-(\d{6,})-[0-9a-f]+")
_PIECE = 8 << 20


def folders(root: Path) -> list[Path]:
    """Checkpoints, oldest first: by step, then by time."""
    found = [p for p in root.glob("step-*") if _FOLDER.fullmatch(p.name)]
    return sorted(found, key=lambda p: (step(p), p.stat().st_mtime))


def write(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Write down the files of the ranks, by name as their writers described them, and STATE."""
    known = {**files, STATE: _describe(folder / STATE)}
    (folder / NAME).write_text(json.dumps(known, indent=1), encoding="utf-8")


def newest(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint and its state, or None if there is none.

    Raises ConfigError, with what is damaged and how to go on from the newest that is whole, or for
    a format of another version.
    """
    found = folders(root)
    if not found:
        return None
    if wrong := damage(found[-1]):
        raise ConfigError(f"{wrong}; {_way_on(found)}")
    return found[-1], json.loads((found[-1] / STATE).read_text(encoding="utf-8"))


def _way_on(found: list[Path]) -> str:
    damaged = [found[-1]]
    whole = None
    for folder in reversed(found[:-1]):
        if not damage(folder):
            whole = folder
            break
        damaged.append(folder)
    moves = " && ".join(f"mv {shlex.quote(str(p))} {shlex.quote(f'{p}.damaged')}" for p in damaged)
    if whole is None:
        return (
            "there is no older one to go on from: choose another --run-dir, or begin anew in this "
            f"one: {moves}"
        )
    return (
        f"to go on from {whole.name}, after step {step(whole)}, move it away and start again: "
        f"{moves}"
    )


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint; empty if nothing is."""
    try:
        state = json.loads((folder / STATE).read_bytes())
        given = state["format"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{folder / STATE} is damaged: {_reason(error)}"
    if given == UNVERIFIED:
        return ""
    if given not in (WHOLE, FORMAT):
        raise ConfigError(
            f"{folder} has checkpoint format {given}, this version reads {UNVERIFIED} to {FORMAT}"
        )
    try:
        files = json.loads((folder / NAME).read_bytes())
        checks = (
            (folder / name, files[name], check)
            for check in (_size, _content)
            for name in sorted(files)
        )
        return next(
            (wrong for path, written, check in checks if (wrong := check(path, written))), ""
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{folder / NAME} is damaged: {_reason(error)}"


def _size(path: Path, written: dict[str, Any]) -> str:
    """Looked at first, for all files: it takes no time."""
    if not path.is_file():
        return f"{path} is missing"
    if path.stat().st_size != written["bytes"]:
        return f"{path} is damaged: {path.stat().st_size} bytes, {written['bytes']} were written"
    return ""


def _content(path: Path, written: dict[str, Any]) -> str:
    return (
        ""
        if _describe(path) == written
        else f"{path} is damaged: its content is not what was written"
    )


def _describe(path: Path) -> dict[str, Any]:
    checksum = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            checksum.update(piece)
    return {"bytes": path.stat().st_size, "xxh3_128": checksum.hexdigest()}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def step(folder: Path) -> int:
    """Of a checkpoint, by its name."""
    return int(folder.name.split("-")[1])
