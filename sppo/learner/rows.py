"""Which rows of a tensor are one rank's, and tensors whole or in part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sppo.learner.ranks import Ranks


def local(value: Tensor) -> Tensor:
    """This rank's part of a sharded tensor; a plain one as it is."""
    return value.to_local() if hasattr(value, "to_local") else value


def whole(value: Tensor) -> Tensor:
    """A sharded tensor from all ranks, which must all call this; a plain one as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def rows(total: int, team: Ranks) -> slice:
    """The rows of a tensor that are this rank's: as `torch.chunk` splits, so the last ranks may
    have none.
    """
    each = -(-total // team.size)
    return slice(min(team.rank * each, total), min((team.rank + 1) * each, total))


@torch.no_grad()
def fill(value: Tensor, source: Any, team: Ranks) -> None:
    """Put this rank's rows of `source`, a whole tensor or a slice of a safetensors file, into a
    tensor.
    """
    local(value).copy_(source[rows(value.shape[0], team)] if value.ndim else source[...])
