"""What rounding an export to a narrow format leaves of what was trained.

A weight of bfloat16 has 8 bits: a change below half of its last one rounds back to the base
model's. With b of the base's files, t trained and r(t) as it is exported, the share that is left is

    Σ (r(t) − b) (t − b) / Σ (t − b)²

over all weights: 0 where everything rounds back, 1 where nothing is lost. What rounding adds at
random falls out of the sum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

PIECE = 1 << 22
"""Numbers that are compared at a time."""


class Rounding:
    """To `dtype`, of a model whose base is in the folder `base`; weight by weight."""

    def __init__(self, base: str, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._exact = dtype in (torch.float32, torch.float64)
        self._files: dict[str, Path] = {}
        for file in [] if self._exact else sorted(Path(base).glob("*.safetensors")):
            with safe_open(file, "pt") as tensors:
                self._files |= dict.fromkeys(tensors.keys(), file)
        self._left = self._changed = 0.0
        self._missing = False

    def of(self, name: str, trained: Tensor) -> Tensor:
        """A trained weight, rounded, on the CPU."""
        trained = trained.detach().cpu()
        rounded = trained.to(self._dtype)
        if not self._exact:
            self._compare(name, trained, rounded)
        return rounded

    @property
    def left(self) -> float | None:
        """The share that is left; None where nothing is rounded or was trained, or where the base's
        files name or lay out a weight otherwise.
        """
        if self._exact or self._missing or not self._changed:
            return None
        return self._left / self._changed

    def _compare(self, name: str, trained: Tensor, rounded: Tensor) -> None:
        base = self._base(name)
        if base is None or base.shape != trained.shape:
            self._missing = True
            return
        flat = (x.reshape(-1).split(PIECE) for x in (trained, rounded, base))
        for t, r, b in zip(*flat, strict=True):
            change = t.double() - b.double()
            self._left += float(torch.dot(r.double() - b.double(), change))
            self._changed += float(torch.dot(change, change))

    def _base(self, name: str) -> Any:
        if name not in self._files:
            return None
        with safe_open(self._files[name], "pt") as tensors:
            return tensors.get_tensor(name)
