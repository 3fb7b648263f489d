"""Weights as buckets: consecutive weights packed into one stretch of bytes, which travels as one
message.

Both ends derive the same buckets from the same description of the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

ALIGNMENT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Consecutive weights that travel as one message."""

    names: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    shapes: tuple[torch.Size, ...]
    sizes: tuple[int, ...]
    """Bytes of each weight's place, a multiple of ALIGNMENT so that any dtype may be viewed
    there.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of the whole bucket."""
        return sum(self.sizes)

    def unpack(self, flat: Tensor) -> list[tuple[str, Tensor]]:
        """Named views of a received bucket, [nbytes] uint8."""
        parts = torch.split(flat, list(self.sizes))
        return [
            (name, part[: shape.numel() * dtype.itemsize].view(dtype).view(shape))
            for name, part, dtype, shape in zip(
                self.names, parts, self.dtypes, self.shapes, strict=True
            )
        ]


def buckets(
    names: Sequence[str], dtype_names: Sequence[str], shapes: Sequence[Sequence[int]], limit: int
) -> list[Bucket]:
    """The buckets of these weights: in order, each at most `limit` bytes unless one weight alone is
    larger.
    """
    described = zip(names, dtype_names, shapes, strict=True)
    parts = (
        _Part(name, getattr(torch, dtype), torch.Size(shape)) for name, dtype, shape in described
    )
    return [_bucket(some) for some in _together(parts, limit)]


def stage(
    weights: Iterable[tuple[str, Tensor]], places: Sequence[Tensor], limit: int, *, pin: bool
) -> tuple[dict[str, Any], list[Tensor]]:
    """Copy weights, one after the other, into buckets of host memory, those of `places` where they
    fit. Returns (what describes them to a receiver, the buckets).

    Pinned memory is filled behind the caller's back: synchronise before it is read.
    """
    update: dict[str, Any] = {"names": [], "dtype_names": [], "shapes": []}
    free, staged = iter(places), []
    for parts in _together((_Part(name, w.dtype, w.shape, w) for name, w in weights), limit):
        bucket, flat = _bucket(parts), next(free, None)
        if flat is None or flat.numel() != bucket.nbytes:
            flat = torch.zeros(bucket.nbytes, dtype=torch.uint8, pin_memory=pin)
        for (_, view), part in zip(bucket.unpack(flat), parts, strict=True):
            assert part.weight is not None
            view.copy_(part.weight.detach(), non_blocking=pin)
        update["names"] += bucket.names
        update["dtype_names"] += [str(d).removeprefix("torch.") for d in bucket.dtypes]
        update["shapes"] += [list(shape) for shape in bucket.shapes]
        staged.append(flat)
    return update, staged


class _Part(NamedTuple):
    """One weight of a bucket."""

    name: str
    dtype: torch.dtype
    shape: torch.Size
    weight: Tensor | None = None

    @property
    def size(self) -> int:
        """Bytes of its place."""
        return -(-self.shape.numel() * self.dtype.itemsize // ALIGNMENT) * ALIGNMENT


def _together(parts: Iterable[_Part], limit: int) -> Iterator[list[_Part]]:
    """What goes into one bucket, bucket by bucket; it has no more than one bucket in hand."""
    pending: list[_Part] = []
    for part in parts:
        if pending and sum(p.size for p in pending) + part.size > limit:
            yield pending
            pending = []
        pending.append(part)
    if pending:
        yield pending


def _bucket(parts: list[_Part]) -> Bucket:
    return Bucket(
        names=tuple(p.name for p in parts),
        dtypes=tuple(p.dtype for p in parts),
        shapes=tuple(p.shape for p in parts),
        sizes=tuple(p.size for p in parts),
    )
