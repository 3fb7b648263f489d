"""Where and by how much engine and learner differ about the same tokens.

Shape suffix: T completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CONCENTRATED = 4.0
"""How many times the mean of the other tokens makes a place the likely cause."""
GROWN = 2.0
"""How many times the mean of a completion's first half its second must be to have grown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """|engine − learner| log-prob of tokens, in nats, and where in their completions these
    stand.
    """

    gap_T: Tensor
    at_T: Tensor
    """Tokens of the completion before this one."""
    left_T: Tensor
    """Tokens of the completion after this one."""

    @classmethod
    def of(cls, gap_T: Tensor, cu_seqlens: Tensor, chosen_T: Tensor) -> Gaps:
        """The chosen tokens of completions with these offsets [N + 1], on the CPU."""
        lengths = cu_seqlens.diff()
        at_T = torch.arange(len(gap_T), device=gap_T.device) - cu_seqlens[:-1].repeat_interleave(
            lengths
        )
        left_T = lengths.repeat_interleave(lengths) - 1 - at_T
        parts = (values_T[chosen_T].float().cpu() for values_T in (gap_T.detach(), at_T, left_T))
        return cls(**dict(zip(cls.__slots__, parts, strict=True)))

    @classmethod
    def join(cls, parts: Sequence[Gaps]) -> Gaps:
        """All of them."""
        none = torch.zeros(0)
        return cls(
            **{
                name: torch.cat([none, *(getattr(p, name) for p in parts)])
                for name in cls.__slots__
            }
        )

    def pack(self) -> dict[str, bytes]:
        """For the rank that judges."""
        return {name: getattr(self, name).numpy().tobytes() for name in self.__slots__}

    @classmethod
    def unpack(cls, packed: dict[str, bytes]) -> Gaps:
        """Inverse of `pack`."""
        return cls(**{name: _floats(data) for name, data in packed.items()})

    @property
    def mean(self) -> float | None:
        """Nats a token; None without tokens."""
        return float(self.gap_T.mean()) if len(self.gap_T) else None


def likely_cause(gaps: Gaps) -> str:
    """Where the difference lies, and so what to look at."""
    last_T = gaps.left_T == 0
    inner = Gaps(gap_T=gaps.gap_T[~last_T], at_T=gaps.at_T[~last_T], left_T=gaps.left_T[~last_T])
    last, others = _mean(gaps.gap_T[last_T]), _mean(inner.gap_T)
    if len(inner.gap_T) and last > CONCENTRATED * others:
        return (
            "it lies in the last token of completions: look at the tokens that end a turn, and at "
            "how completions are "
            "cut off"
        )
    length_T = inner.at_T + inner.left_T + 1
    late_T = inner.at_T >= length_T / 2
    early, late = _mean(inner.gap_T[~late_T]), _mean(inner.gap_T[late_T])
    if len(inner.gap_T) and late > GROWN * early:
        return (
            "it grows with the position: look at sliding windows, scaled positions, and a stale "
            "prefix cache"
        )
    return (
        "it is everywhere: look at the temperature on both sides, the dtype, factors and caps of "
        "the head, truncation "
        "(top-p, top-k), and at weights that did not arrive"
    )


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0


def _floats(data: Any) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float32) if data else torch.zeros(0)
