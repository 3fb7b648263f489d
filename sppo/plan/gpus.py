"""GPUs by name or size, and how much of one a process may fill."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sppo.errors import ConfigError

GIB = 2**30

SIZES: Mapping[str, float] = {
    "a10": 22.0, "l4": 22.0, "rtx-4090": 23.5, "rtx-5090": 31.3, "v100": 31.7, "a100-40": 39.4,
    "l40s": 44.4, "rtx-6000-ada": 47.4, "a100-80": 79.1, "h100": 79.1, "h200": 139.8, "b200": 178.3,
}  # fmt: skip
"""GiB that torch reports as a device's total."""
ASSUMED = "h100"
SPARE, CONTEXT = 0.04, GIB
"""Not to be filled: what an allocator's gaps take of a GPU, and what CUDA and NCCL take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A kind of GPU."""

    name: str
    nbytes: int
    taken: int = 0
    """By others that share it."""

    @property
    def usable(self) -> int:
        """Bytes that a role may plan with."""
        return int(self.nbytes * (1 - SPARE)) - CONTEXT - self.taken


def named(text: str) -> Gpu:
    """By a name of `SIZES`, or a size: `40GB` (10^9 bytes) or `37GiB`. Raises ConfigError."""
    name = text.strip().lower().replace("_", "-")
    if name in SIZES:
        return Gpu(name=name, nbytes=int(SIZES[name] * GIB))
    if found := re.fullmatch(r"(\d+(?:\.\d+)?) ?(gb|gib)", name):
        nbytes = int(float(found[1]) * (10**9 if found[2] == "gb" else GIB))
        if nbytes > 2 * CONTEXT:
            return Gpu(name=text.strip(), nbytes=nbytes)
    raise ConfigError(f"--gpu {text!r}: neither a size such as 40GB nor one of {', '.join(SIZES)}")


def here() -> Gpu | None:
    """The first one that torch sees on this machine."""
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return Gpu(name=found.name, nbytes=int(found.total_memory))


def size(nbytes: float) -> str:
    """In words."""
    if nbytes >= GIB:
        return f"{nbytes / GIB:.1f} GiB"
    return f"{nbytes / 2**20:.1f} MiB" if nbytes >= 2**20 else f"{nbytes / 2**10:.1f} KiB"
