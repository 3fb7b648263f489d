"""One rank's file of a checkpoint, written while training goes on: from copies in host memory, or
from the weights themselves for as long as they stand still.

A safetensors file whose header says where in the whole tensors its rows begin, the way
torch.distributed.checkpoint's `HuggingFaceStorageReader` reads it.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from sppo.errors import SppoError
from sppo.learner.rows import first_row, local, written_here

BLOCK = 64 << 20
"""A power of two: torch's allocator of pinned memory rounds up to one."""
UNFLUSHED = 256 << 20
"""Bytes handed to the system before they are waited for on the disk."""
SHARDING = "DCP_SHARDING_INFO"
"""Of the header's metadata: JSON, tensor name to {"saved_offsets": first index by dimension}."""
_DTYPES = {
    torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8",
}  # fmt: skip


class Room:
    """Host memory for images, kept from one checkpoint to the next: fresh memory costs several
    times what copying into it does. Pinned where copies come from a GPU.
    """

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._lent = 0

    def empty(self) -> None:
        """Nothing that was lent is in use any more."""
        self._lent = 0

    def prepare(self, nbytes: int, *, pinned: bool) -> None:
        """Have so much at hand: memory that is touched for the first time costs most."""
        for block in self.lend(nbytes, pinned=pinned):
            block.zero_()
        self.empty()

    def lend(self, nbytes: int, *, pinned: bool) -> list[Tensor]:
        """Blocks of at least so many bytes in all. Raises SppoError if memory is short."""
        needed, given = nbytes, list[Tensor]()
        while nbytes > 0:
            if self._lent == len(self._blocks):
                size = min(BLOCK, nbytes)
                try:
                    block = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
                except RuntimeError as error:
                    raise SppoError(
                        f"no host memory for {needed:,} bytes that this rank copies for a "
                        f"checkpoint: {error}; use a machine with more, optimizer.name = "
                        '"rmsprop" (one moment less), or adapter.rank (adapters alone are saved)'
                    ) from error
                self._blocks.append(block)
            given.append(self._blocks[self._lent])
            nbytes -= len(given[-1])
            self._lent += 1
        return given


class Image:
    """Those of some tensors, or of their rows, that this rank is to write.

    They are copied to host memory at once, or with `late` when they are about to change (`detach`):
    what is written by then needs no copy. What is on a GPU is always copied at once.
    """

    def __init__(
        self, tensors: Iterable[tuple[str, Tensor]], room: Room, *, first: bool, late: bool = False
    ) -> None:
        """`first`: this rank writes what every rank has whole.

        Copies from a GPU have begun when this returns; the device must be waited for.
        """
        mine = [(n, t, local(t).detach()) for n, t in tensors if written_here(t, first=first)]
        kept = [(n, t, part) for n, t, part in mine if part.numel()]
        kept.sort(key=lambda one: -one[2].element_size())  # each is aligned so
        header = torch.frombuffer(bytearray(_header(kept)), dtype=torch.uint8)
        flat = [part.contiguous().reshape(-1).view(torch.uint8) for _, _, part in kept]
        self.nbytes = sum(map(len, [header, *flat]))
        self.from_gpu = any(part.is_cuda for part in flat)
        self._room = Room() if late and not self.from_gpu else room  # seldom used, not kept
        self._lock = threading.Lock()
        self._left = deque([header, *flat])
        """What is not written yet."""
        self._still = False
        """Nobody changes what is left."""
        if self.from_gpu or not late:
            self.detach()

    def detach(self) -> None:
        """The tensors may change after this: what is left to be written is copied. Raises SppoError
        if memory is short.
        """
        with self._lock:
            if self._still:
                return
            left = sum(map(len, self._left))
            blocks = self._room.lend(left, pinned=self.from_gpu)
            to = _Cursor(blocks)
            for part in self._left:
                to.put(part)
            self._left.clear()
            for block in blocks:
                self._left.append(block[:left])
                left -= len(self._left[-1])
            self._still = True

    def write(self, path: Path, wrote: Callable[[int], None] = lambda n: None) -> dict[str, Any]:
        """Write the file and have it on the disk; returns its size and checksum. `wrote` hears how
        many bytes each piece had. Raises OSError.
        """
        checksum, unflushed = xxhash.xxh3_128(), 0
        with path.open("wb", buffering=0) as file:
            while n := self._put(file, checksum):
                unflushed += n
                if unflushed >= UNFLUSHED:
                    os.fsync(file.fileno())
                    unflushed = 0
                wrote(n)
            os.fsync(file.fileno())
        return {"bytes": self.nbytes, "xxh3_128": checksum.hexdigest()}

    def _put(self, file: FileIO, checksum: xxhash.xxh3_128) -> int:
        """Write the next piece, and say how long it was; `detach` waits no longer than for one."""
        with self._lock:
            if not self._left:
                return 0
            part = self._left.popleft()
            piece = part[:BLOCK]
            data, at = memoryview(piece.numpy()), 0  # type: ignore[arg-type]
            checksum.update(data)
            while at < len(data):
                at += file.write(data[at:])
            if len(part) > len(piece):
                self._left.appendleft(part[len(piece) :])
            return len(piece)


class _Cursor:
    """Bytes laid end to end over blocks."""

    def __init__(self, blocks: Iterable[Tensor]) -> None:
        self._blocks: Iterator[Tensor] = iter(blocks)
        self._rest = torch.empty(0, dtype=torch.uint8)

    def put(self, flat: Tensor) -> None:
        while len(flat):
            if not len(self._rest):
                self._rest = next(self._blocks)
            n = min(len(flat), len(self._rest))
            self._rest[:n].copy_(flat[:n], non_blocking=True)
            flat, self._rest = flat[n:], self._rest[n:]


def _header(kept: list[tuple[str, Tensor, Tensor]]) -> bytes:
    """See https://github.com/huggingface/safetensors#format: a length, then JSON."""
    offsets = {
        name: {"saved_offsets": [first_row(whole), *[0] * (part.ndim - 1)][: part.ndim]}
        for name, whole, part in kept
    }
    made: dict[str, Any] = {
        "__metadata__": {"format": "pt", "DCP_VERSION": "1.0", SHARDING: json.dumps(offsets)}
    }
    at = 0
    for name, _, part in kept:
        end = at + part.nbytes
        made[name] = {
            "dtype": _DTYPES[part.dtype], "shape": list(part.shape), "data_offsets": [at, end],
        }  # fmt: skip
        at = end
    text = json.dumps(made, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
