"""Each rank shows the others that it lives and where it is, and a rank that does not come is named.

    sign/1    {"beat": 41, "doing": "step 5", "passed": 1180, "still": 0.2, ...}    every 2 s

A collective cannot say for whom it waits: gloo and NCCL may wait for ever. So a thread of each rank
writes where its main thread is (`sppo.learner.where`), and looks at the others. Named are

    a rank without a sign     its process is stopped, or its machine is gone
    a rank that is behind     it has passed fewer places than another one that waits, and both have
                              stood still for the deadline

Who has not run for a while (a job that was suspended) says nothing of the others for that while:
from then on all have their time anew.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sppo.learner.where import Where

log = logging.getLogger(__name__)

SIGN_S = 2.0
"""Between two signs of life."""
SILENT_S = 30.0
"""Without one a rank is gone."""
PAUSE_S = 10.0
"""A thread that looks around every `SIGN_S` and finds so much gone has not run meanwhile: a job was
suspended, with all its ranks.
"""
GONE = (FileNotFoundError, ConnectionError)
"""What a store says that is not there any more."""

Found = Mapping[int, str]
"""Ranks that do not come, and in words what is known of each."""


class Folder:
    """A store of torch.distributed as far as signs need one, for ranks that see a private
    folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self, key: str, value: str) -> None:
        """There whole or not at all. Raises OSError once the folder is gone."""
        at = self._at(key)
        fresh = at.with_suffix(".fresh")
        fresh.write_text(value, encoding="utf-8")
        fresh.rename(at)

    def get(self, key: str) -> bytes:
        """Raises OSError if nobody has set it."""
        return self._at(key).read_bytes()

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""
        return all(self._at(key).exists() for key in keys)

    def _at(self, key: str) -> Path:
        return self._path / key.replace("/", "-")


class Signs:
    """This rank's, and what it sees of the others'."""

    def __init__(
        self, store: Any, where: Where, *, rank: int, size: int, deadline_s: float
    ) -> None:
        self._store, self._where = store, where
        self._rank, self._size = rank, size
        self._deadline_s = deadline_s
        self._beat = 0
        self._over = threading.Event()
        self._seen: dict[int, tuple[dict[str, Any], float]] = {}
        """The newest sign of each rank, and when it was first seen."""
        self._looked = time.monotonic()

    def start(self, lost: Callable[[Found], None], alone: Callable[[str], None]) -> None:
        """Give signs from a thread, until others are `lost`, or the store is: `alone` is told
        why.
        """
        threading.Thread(
            target=self._run, args=(lost, alone), daemon=True, name="signs"
        ).start()  # fmt: skip

    def end(self) -> None:
        """No more of them."""
        self._over.set()

    def found(self) -> Found:
        """Other ranks that do not come; the silent ones, if any is."""
        now = time.monotonic()
        silent = {
            rank: f"{_who(rank, sign)} has given no sign of life for {now - at:.0f} s; it was "
            f"{sign['doing']}"
            for rank, (sign, at) in sorted(self._seen.items())
            if now - at > SILENT_S
        }
        return silent or self._behind(now)

    def _behind(self, now: float) -> Found:
        signs = {rank: (sign, sign["still"] + now - at) for rank, (sign, at) in self._seen.items()}
        own = self._where.post()
        signs[self._rank] = (own, own["still"])
        stand = {rank: sign for rank, (sign, s) in signs.items() if s > self._deadline_s}
        found = {}
        for rank, sign in sorted(stand.items()):
            waiting = [o for o, other in sorted(stand.items()) if other["passed"] > sign["passed"]]
            if waiting and not sign["patient"] and rank != self._rank:
                found[rank] = (
                    f"{_who(rank, sign)} has stood still for {signs[rank][1]:.0f} s: it was "
                    f"{sign['doing']}, and rank {', '.join(map(str, waiting))} waits for it"
                )
        return found

    def look(self) -> None:
        """Write this rank's sign and read the others'. Raises RuntimeError or OSError where the
        store is gone.
        """
        if self._paused():
            self._begin_anew()
        self._looked = time.monotonic()
        self._beat += 1
        self._store.set(f"sign/{self._rank}", json.dumps({"beat": self._beat} | self._where.post()))
        for rank in range(self._size):
            key = f"sign/{rank}"
            if rank == self._rank or not self._store.check([key]):
                continue
            sign = json.loads(self._store.get(key))
            if rank not in self._seen or self._seen[rank][0]["beat"] != sign["beat"]:
                self._seen[rank] = (sign, time.monotonic())

    def _paused(self) -> bool:
        return time.monotonic() - self._looked > PAUSE_S

    def _begin_anew(self) -> None:
        """Nobody has been silent or has stood still before this moment."""
        now = time.monotonic()
        self._where.moved = now
        self._seen = {rank: (sign | {"still": 0.0}, now) for rank, (sign, _) in self._seen.items()}

    def _run(self, lost: Callable[[Found], None], alone: Callable[[str], None]) -> None:
        excused = False
        while not self._over.is_set():
            try:
                self.look()
                excused = False
            except (RuntimeError, OSError) as error:
                # What was under way in a pause has timed out. A store that answers no more takes
                # as long, and again the next time.
                if self._paused() and not excused:
                    excused = True
                    self._begin_anew()
                    self._looked = time.monotonic()
                    continue
                if isinstance(error, OSError) and not isinstance(error, GONE):
                    log.warning("a sign of life was not written: %s", error)  # a full disk
                    self._over.wait(SIGN_S)
                    continue
                if not self._over.is_set():
                    alone(str(error).splitlines()[0])
                return
            if found := self.found():
                lost(found)
                return
            self._over.wait(SIGN_S)


def _who(rank: int, sign: Mapping[str, Any]) -> str:
    return f"rank {rank} of the learner (process {sign['pid']} on {sign['host']})"
