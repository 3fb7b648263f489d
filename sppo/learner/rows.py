"""Which rows of a tensor are one rank's, and tensors whole or in part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def local(value: Tensor) -> Tensor:
    """This rank's part of a sharded tensor; a plain one as it is."""
    return value.to_local() if hasattr(value, "to_local") else value


def whole(value: Tensor) -> Tensor:
    """A sharded tensor from all ranks, which must all call this; a plain one as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def rows(value: Tensor) -> slice:
    """The rows of a sharded tensor that are this rank's: as `torch.chunk` splits, so the last ranks
    may have none. All of a plain one.
    """
    total = value.shape[0]
    rank, size = _place(value)
    each = -(-total // size)
    return slice(min(rank * each, total), min((rank + 1) * each, total))


def first_row(value: Tensor) -> int:
    """The first of them; 0 where there are no rows."""
    return int(rows(value).start) if value.ndim else 0


def written_here(value: Tensor, *, first: bool) -> bool:
    """Whether this rank is the one to write or count its part of a tensor: of those that have the
    same rows the first. `first`: this rank is the first of all.
    """
    if not hasattr(value, "to_local"):
        return first
    at = _coordinate(value)
    return not any(c for c, p in zip(at, _placements(value), strict=True) if not p.is_shard())


@torch.no_grad()
def fill(value: Tensor, source: Any) -> None:
    """Put this rank's rows of `source`, a whole tensor or a slice of a stored one, into a
    tensor.
    """
    local(value).copy_(source[rows(value)] if value.ndim else source[...])


def _place(value: Any) -> tuple[int, int]:
    """Number of the part of a sharded tensor that is here, and of how many."""
    if hasattr(value, "to_local"):
        for dim, placement in enumerate(_placements(value)):
            if placement.is_shard():
                return _coordinate(value)[dim], value.device_mesh.size(dim)
    return 0, 1


def _placements(value: Any) -> Any:
    return value.placements


def _coordinate(value: Any) -> list[int]:
    found = value.device_mesh.get_coordinate()
    assert found is not None, "this rank is none of the mesh"
    return list(found)
