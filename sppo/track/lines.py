"""A file of JSON lines that another process writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO


class Lines:
    """Follows a file that grows, or is replaced by one with fewer lines (`JsonLines.keep`).

    records = lines.news()      # of a file that was replaced, all of them again
    lines.anew                  # whether these begin with the first of the file
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.anew = False

    def news(self) -> list[dict[str, Any]]:
        """Whole records since the last call; none while there is no file."""
        if self._file is not None and self._replaced(self._file):
            self.close()
        self.anew = self._file is None
        if self._file is None:
            if not self._path.exists():
                return []
            # Held open: as long as it is, no other file has its number.
            self._file = self._path.open("rb")
        begin = self._file.tell()
        found = self._file.read()
        whole = found.rfind(b"\n") + 1
        self._file.seek(begin + whole)
        return [record for line in found[:whole].splitlines() for record in _record(line)]

    def close(self) -> None:
        """Let go of the file; the next call begins at its first line."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _replaced(self, file: BinaryIO) -> bool:
        try:
            there, held = self._path.stat(), os.fstat(file.fileno())
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino)


def _record(line: bytes) -> list[dict[str, Any]]:
    """None of a line that was cut off by a full disk or a death, and written on to later."""
    try:
        return [json.loads(line)]
    except ValueError:
        return []
