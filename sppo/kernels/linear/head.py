"""The head of a language model, as one value.

Shape suffixes: T tokens, H hidden, V vocabulary.

    z = softcap(factor · (hidden · weightᵀ + bias)) / temperature,   softcap(x) = c tanh(x / c)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sppo.kernels.inputs import (
    DTYPES,
    check_softcap,
    check_whole,
    describe,
    spread_temperature,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What turns hidden states into the logits that tokens are sampled from."""

    weight_VH: Tensor
    bias: Tensor | None = None
    """[V]. A bias of −inf takes a token out of the vocabulary."""
    temperature: float | Tensor = 1.0
    """A number above 0, or one for each token [T]; no gradient flows to it."""
    softcap: float | None = None
    """Logits stay within ± this (Gemma 2)."""
    factor: float = 1.0
    """What the model multiplies its logits by (Granite, Cohere). Not together with a soft cap."""

    def check(self, hidden_TH: Tensor) -> None:
        """Raises ValueError naming the argument where shapes, dtypes or devices do not fit."""
        weight_VH, bias = self.weight_VH, self.bias
        check_whole(hidden_TH=hidden_TH, weight_VH=weight_VH, bias=bias)
        if hidden_TH.ndim != 2 or hidden_TH.dtype not in DTYPES:
            raise ValueError(f"hidden_TH is {describe(hidden_TH)}: expected float [T, H]")
        width = hidden_TH.shape[1]
        if weight_VH.ndim != 2 or weight_VH.shape[1] != width or not len(weight_VH):
            raise ValueError(
                f"weight_VH is {describe(weight_VH)}: expected [V, {width}], V above 0"
            )
        if weight_VH.dtype != hidden_TH.dtype or weight_VH.device != hidden_TH.device:
            raise ValueError(
                f"weight_VH is {describe(weight_VH)}, hidden_TH {describe(hidden_TH)}: expected "
                f"one dtype and device"
            )
        like = weight_VH.shape[:1], weight_VH.device
        if bias is not None and ((bias.shape, bias.device) != like or not bias.is_floating_point()):
            raise ValueError(
                f"bias is {describe(bias)}: expected float [{len(weight_VH)}] on {like[1]}"
            )
        check_softcap(self.softcap)
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor is {self.factor}: expected a finite number above 0")
        if self.factor != 1 and self.softcap is not None:
            raise ValueError(
                f"factor is {self.factor} and softcap {self.softcap}: expected one of both; no "
                f"order of them is known"
            )

    def temperature_T(self, hidden_TH: Tensor) -> Tensor:  # noqa: N802 - named by its shape
        """What the logits of each token are divided by, the factor included. Raises ValueError."""
        return spread_temperature(self.temperature, hidden_TH, self.factor)
