"""One rank's part in writing a checkpoint: a thread writes it while training goes on, from host
copies. From a GPU they are made while everyone waits; what is in host memory anyway is written from
where it stands, and copied where the next optimizer step comes first.

    SCRATCH/model/00001-of-00002.safetensors    this rank's rows of each kind of tensors
    SCRATCH/part-00001.json                     last: {"files": sizes and checksums} or {"error"}

Rank 0 looks for the parts (`sppo.learner.checkpoint`), so the folder is one that all ranks see.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppo.learner.image import Image, Room

log = logging.getLogger(__name__)

LOOK_S = 0.2
RESCUE_S = 20.0
"""A rank that has written nothing for so long is gone."""
NOTE_BYTES = 4096
"""At least what a rank says in the end."""
Kinds = Mapping[str, Iterable[tuple[str, Tensor]]]
"""(name, tensor whole or in shards) by kind: model, optimizer, a snapshot's name."""


class Writer:
    """Writes for one rank, one checkpoint at a time."""

    def __init__(self, *, late: bool = False) -> None:
        """`late`: nothing but what calls `detach` first changes what is to be written."""
        self._late = late
        self._room = Room()
        self._images: Mapping[str, Image] = {}
        self.held_s = 0.0
        """Seconds that training waited for `detach` during this checkpoint."""
        self._thread: threading.Thread | None = None
        self._short: Exception | None = None
        self._writes = False
        self._moved = 0.0
        self.error = ""
        """Why even that could not be said in a file."""

    def prepare(self, nbytes: int, *, pinned: bool) -> None:
        """Have memory for so much at hand when the first checkpoint begins: made meanwhile."""
        self._start(lambda: self._prepare(nbytes, pinned))

    def _prepare(self, nbytes: int, pinned: bool) -> None:
        try:
            self._room.prepare(nbytes, pinned=pinned)
        except Exception as error:  # noqa: BLE001 - raised where the first checkpoint begins
            self._short = error

    def begin(self, scratch: Path, kinds: Kinds, *, rank: int, size: int) -> int:
        """Begin to write this rank's part; returns how many bytes that is. The one before must be
        written. Raises SppoError if host memory is short.
        """
        if self._thread is not None:
            self._thread.join()
        if self._short:
            raise self._short
        self._room.empty()
        self.held_s = 0.0
        self._images = images = {
            kind: Image(t, self._room, first=rank == 0, late=self._late)
            for kind, t in kinds.items()
        }
        if any(image.from_gpu for image in images.values()):
            torch.cuda.synchronize()
        self._writes, self._moved = True, time.monotonic()
        self._start(lambda: self._write(scratch, images, rank, size))
        return sum(image.nbytes for image in images.values())

    def detach(self) -> None:
        """What is being written may change after this. Raises SppoError if host memory is short."""
        began = time.monotonic()
        for image in self._images.values():
            image.detach()
        self.held_s += time.monotonic() - began

    def rescue(self) -> None:
        """This rank ends with an error: first write what it is writing, as long as that gets on."""
        while self._thread and self._writes and time.monotonic() - self._moved < RESCUE_S:
            self._thread.join(LOOK_S)
            self._writes = self._thread.is_alive()

    def _wrote(self, nbytes: int) -> None:
        self._moved = time.monotonic()

    def _start(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=work, daemon=True, name="checkpoint")
        self._thread.start()

    def _write(self, scratch: Path, images: Mapping[str, Image], rank: int, size: int) -> None:
        file = f"{rank + 1:05d}-of-{size:05d}.safetensors"
        try:
            part: dict[str, Any] = {"files": {}}
            for kind, image in images.items():
                (scratch / kind).mkdir(exist_ok=True)
                part["files"][f"{kind}/{file}"] = image.write(scratch / kind / file, self._wrote)
            self._images = {}  # and their memory
        except Exception as error:  # noqa: BLE001 - rank 0 raises it
            part = {"error": str(error)}
            for kind in images:  # room for what says so
                with suppress(OSError):
                    (scratch / kind / file).unlink()
        try:
            _put(scratch / part_name(rank), json.dumps(part))
        except OSError as error:
            if not scratch.is_dir():  # given up by rank 0, or removed by the life after this one
                log.warning("%s is gone, and rank %d's part of it", scratch, rank)
                return
            log.error("rank %d cannot say how its part of the checkpoint went: %s", rank, error)
            self.error = str(error)
            if rank:  # rank 0 hears of it by this end alone
                os._exit(1)


def part_name(rank: int) -> str:
    """Of the file that says how a rank's part went."""
    return f"part-{rank + 1:05d}.json"


def reserve(scratch: Path, ranks: int) -> None:
    """Room for what so many ranks will say, before the disk is full. Raises OSError."""
    for rank in range(ranks):
        _fresh(scratch / part_name(rank)).write_bytes(b" " * NOTE_BYTES)


def _fresh(note: Path) -> Path:
    return note.with_suffix(".partial")


def _put(path: Path, text: str) -> None:
    """There whole or not at all; in the room that was reserved, which JSON may end with."""
    with _fresh(path).open("r+b") as file:
        file.write(text.encode())
    _fresh(path).rename(path)
