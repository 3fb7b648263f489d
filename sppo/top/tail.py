"""The new lines of a file that others append to, each read once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

LAST = 2 << 20
"""Bytes of the end of a file that are read at first: about a thousand steps of metrics.jsonl."""


class Tail:
    """while True: for record in tail.records(): ..."""

    def __init__(self, path: Path, last: int = LAST) -> None:
        self._path, self._last = path, last
        self._at, self._file = 0, 0
        self._rest = b""
        self.anew = False
        """Whether the last call found another file, or a shorter one: what was read is void."""

    def lines(self) -> list[bytes]:
        """Whole lines since the last call; of the first, those that begin in the last bytes. One
        that is being written is for the next call.
        """
        try:
            with self._path.open("rb") as file:
                return self._read(file)
        except FileNotFoundError:
            self.anew, self._at, self._file, self._rest = self._file != 0, 0, 0, b""
            return []

    def records(self) -> list[dict[str, Any]]:
        """The same as objects, without what is none."""
        found = []
        for line in self.lines():
            try:
                record = json.loads(line)
            except ValueError:  # cut off by a crash, and then written on
                continue
            if isinstance(record, dict):
                found.append(record)
        return found

    def _read(self, file: BinaryIO) -> list[bytes]:
        size, inode = file.seek(0, 2), _inode(file)
        self.anew = bool(self._file) and (inode != self._file or size < self._at)
        if self.anew or not self._file:
            self._file, self._rest = inode, b""
            self._at = max(0, size - self._last)
            skips = self._at > 0
        else:
            skips = False
        file.seek(self._at)
        data = file.read(size - self._at)
        self._at += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        return whole[1:] if skips else whole


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino
