"""Tensors in shards, as `DTensor` shows them, without any process group."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class Sharded:
    """Rows of a whole tensor: those of one rank of `size`, the same in each of `copies` groups of
    ranks.
    """

    def __init__(self, whole: Tensor, rank: int, size: int, *, copies: int = 1) -> None:
        self._whole = whole
        self.ndim, self.shape = whole.ndim, whole.shape
        parts = torch.chunk(whole, size)
        at = rank % size
        self._local = parts[at] if at < len(parts) else whole[:0]
        shard = SimpleNamespace(is_shard=lambda: True)
        replicate = SimpleNamespace(is_shard=lambda: False)
        sizes = [copies, size] if copies > 1 else [size]
        place = [rank // size, at] if copies > 1 else [at]
        self.placements = [replicate, shard] if copies > 1 else [shard]
        self.device_mesh = SimpleNamespace(
            size=lambda dim: sizes[dim], get_coordinate=lambda: place
        )

    def to_local(self) -> Tensor:
        return self._local


def shard(whole: Tensor, rank: int, size: int, *, copies: int = 1) -> Any:
    return Sharded(whole, rank, size, copies=copies)
