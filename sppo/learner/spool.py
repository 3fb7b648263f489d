"""Groups on the learner's disk: those beyond the broker's budget until a checkpoint, and those that
were refused.

RUN/spool/<uid>.frame         a group that the broker need not keep, until a checkpoint covers it
RUN/quarantine/<name>.frame   a group that was refused, for whoever wants to know why
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sppo.errors import SppoError
from sppo.faults import point
from sppo.learner.checkpoint import flush
from sppo.types import digest

QUARANTINED = 64
_SUFFIX = ".frame"


class Spool:
    """Frames by ticket. What `write` was given is on disk when it returns."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / "spool"
        self._quarantine = run_dir / "quarantine"

    def write(self, frames: dict[str, bytes]) -> None:
        """Keep these frames. Raises SppoError if the disk is full; the broker still has them
        then.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for uid, frame in frames.items():
                scratch = self._folder / f".{uid}.partial"
                with scratch.open("wb") as file:
                    file.write(frame)
                    file.flush()
                    os.fsync(file.fileno())
                scratch.rename(self._folder / f"{uid}{_SUFFIX}")
            flush(self._folder)
        except OSError as error:
            raise SppoError(
                f"{self._folder}: {error.strerror}; free some disk space, then `sppo-cli up` again"
            ) from error
        point("learner.spool.written")

    def frames(self) -> Iterator[tuple[str, bytes]]:
        """(uid, frame) of everything kept, in order."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            yield path.name.removesuffix(_SUFFIX), path.read_bytes()

    def frame(self, uid: str) -> bytes | None:
        """The frame of one ticket, if it is kept."""
        path = self._folder / f"{uid}{_SUFFIX}"
        return path.read_bytes() if path.exists() else None

    def drop(self, ended: Callable[[str], bool]) -> None:
        """Delete the frames of tickets that a durable checkpoint covers, and what a crash left
        unfinished.
        """
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if ended(path.name.removesuffix(_SUFFIX)):
                path.unlink()
        for path in self._folder.glob(".*.partial"):
            path.unlink()

    def quarantine(self, gid: str, frame: bytes) -> Path | None:
        """Keep a refused frame, if fewer than 64 are kept already; returns where."""
        path = (
            self._quarantine / f"{digest(gid)}{_SUFFIX}"
        )  # a gid comes over the wire: it names no path
        try:
            self._quarantine.mkdir(parents=True, exist_ok=True)
            if len(list(self._quarantine.iterdir())) >= QUARANTINED:
                return None
            path.write_bytes(frame)
        except OSError:
            return None
        return path
