"""The tensors of a checkpoint as they are on the disk, whichever number of ranks wrote them.

FOLDER/model/00001-of-00002.safetensors     by each rank its rows (`sppo.learner.image`)
FOLDER/model.safetensors                    one file, before format 4
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from sppo.errors import ConfigError
from sppo.learner.image import SHARDING


@dataclass(frozen=True, slots=True)
class _Piece:
    file: Any
    name: str
    start: int
    """The first row of the whole tensor that is in this file."""
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + (self.shape[0] if self.shape else 0)


class Slice:
    """One tensor; `[rows]` and `[...]` read what is asked for."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self._pieces = sorted(pieces, key=lambda piece: piece.start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole tensor."""
        last = self._pieces[-1]
        return (last.end, *last.shape[1:]) if last.shape else ()

    def __getitem__(self, key: Any) -> Tensor:
        first = self._pieces[0]
        if not first.shape:
            whole: Tensor = first.file.get_tensor(first.name)
            return whole
        wanted = slice(0, self.shape[0]) if key is Ellipsis else key
        parts = [self._part(piece, wanted) for piece in self._pieces]
        found = [part for part in parts if part is not None]
        if not found:
            empty: Tensor = first.file.get_slice(first.name)[0:0]
            return empty
        return found[0] if len(found) == 1 else torch.cat(found)

    def _part(self, piece: _Piece, wanted: slice) -> Tensor | None:
        low, high = max(wanted.start, piece.start), min(wanted.stop, piece.end)
        if low >= high:
            return None
        cut = slice(low - piece.start, high - piece.start)
        found: Tensor = piece.file.get_slice(piece.name)[cut]
        return found


class Tensors:
    """Some of a checkpoint's, by name."""

    def __init__(self, folder: Path, kind: str, files: list[Any]) -> None:
        self.where = folder / kind
        self._pieces: dict[str, list[_Piece]] = {}
        for file in files:
            offsets = json.loads((file.metadata() or {}).get(SHARDING, "{}"))
            for name in file.keys():  # noqa: SIM118 - not a mapping
                at = offsets.get(name, {}).get("saved_offsets") or [0]
                shape = tuple(file.get_slice(name).get_shape())
                self._pieces.setdefault(name, []).append(_Piece(file, name, at[0], shape))

    def names(self) -> set[str]:
        """Of all there are."""
        return set(self._pieces)

    def __contains__(self, name: str) -> bool:
        return name in self._pieces

    def __getitem__(self, name: str) -> Slice:
        return Slice(self._pieces[name])


@contextmanager
def opened(folder: Path, kind: str) -> Iterator[Tensors]:
    """`kind` is `model`, `optimizer` or a snapshot's name. Raises ConfigError if a checkpoint holds
    none.
    """
    found = paths(folder, kind)
    if not found:
        raise ConfigError(f"{folder} holds no {kind}: it is no checkpoint, or a part of one")
    # safetensors keeps a file mapped until its last slice is gone
    yield Tensors(folder, kind, [safe_open(path, "pt") for path in found])


def paths(folder: Path, kind: str) -> list[Path]:
    """Its files; none if it was not saved."""
    single = folder / f"{kind}.safetensors"
    return [single] if single.is_file() else sorted((folder / kind).glob("*.safetensors"))
