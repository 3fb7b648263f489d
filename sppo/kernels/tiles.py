"""The tile tables of the Triton kernels, by architecture. tests/kernels compiles every row and
holds it to no spills.

Imports without Triton.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

SPLIT = 2048
"""Vocabulary columns of one program of the forward pass: a multiple of every BN below. Fixed, and
not chosen to fill the device, so that a token's log-prob has the same bits in every batch.
"""

CHUNK_BYTES = 256 * 2**20
"""Most bytes of logit gradients in memory at once (as long as a chunk of one tile's width is no
larger).
"""

LANES = 2048
"""Columns of a row of logits that a program of `logits_logprob` holds side by side; 16 bytes a
thread at 8 warps.
"""

LANE_COLUMNS = 4
"""Columns a lane takes at a time in the forward pass."""

Architecture = Literal[80, 90, 100]


@dataclass(frozen=True, slots=True)
class Tile:
    """BM tokens × BN vocabulary columns, BK of the hidden width at a time."""

    BM: int
    BN: int
    BK: int
    num_warps: int
    num_stages: int
    parts: int = 1
    """The element-wise part takes the columns in this many pieces, 1 or 2: fewer registers live at
    once.
    """
    tma: bool = True
    """Tiles are fetched through tensor descriptors made on the host; otherwise the kernel computes
    addresses.
    """


FORWARD: dict[Architecture, Tile] = {
    80: Tile(128, 128, 32, num_warps=8, num_stages=4, tma=False),
    90: Tile(128, 256, 64, num_warps=8, num_stages=3, parts=2),
    100: Tile(128, 128, 64, num_warps=4, num_stages=3, parts=2),
}
BACKWARD: dict[Architecture, Tile] = {
    80: Tile(128, 128, 32, num_warps=8, num_stages=4, tma=False),
    90: Tile(128, 128, 64, num_warps=4, num_stages=3, parts=2),
    100: Tile(128, 128, 64, num_warps=4, num_stages=3, parts=2),
}
SOFTCAP_BACKWARD: dict[Architecture, Tile] = BACKWARD | {
    90: Tile(128, 128, 64, num_warps=8, num_stages=3, parts=2)
}
FLOAT32: dict[Architecture, Tile] = {
    80: Tile(64, 64, 16, num_warps=4, num_stages=3, tma=False),
    90: Tile(64, 128, 32, num_warps=8, num_stages=2),
    100: Tile(64, 128, 32, num_warps=8, num_stages=2),
}
"""Both directions of float32 inputs: three tf32 products each, exact to about 1e-6."""

INTERPRETED = Tile(32, 64, 32, num_warps=4, num_stages=1, parts=2)
"""Small, so that few tokens and columns make several tiles."""


def architecture(device: torch.device) -> tuple[Architecture, bool]:
    """The table of a CUDA device, and whether it has tensor descriptors in hardware.

    Devices with less shared memory than the data-centre ones of their generation take the table of
    sm_80.
    """
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) == (9, 0):
        return 90, True
    return (100, True) if major == 10 else (80, major >= 9)


def forward_tile(inputs: Tensor) -> Tile:
    """For inputs of this dtype on this device."""
    return _pick(FORWARD, inputs)


def backward_tile(inputs: Tensor, *, softcap: bool) -> Tile:
    """For inputs of this dtype on this device."""
    return _pick(SOFTCAP_BACKWARD if softcap else BACKWARD, inputs)


def _pick(table: dict[Architecture, Tile], inputs: Tensor) -> Tile:
    if not inputs.is_cuda:
        return INTERPRETED
    found, tma = architecture(inputs.device)
    return replace((FLOAT32 if inputs.dtype == torch.float32 else table)[found], tma=tma)
