"""Heads for tests: inputs made up from a seed, and calls whose arguments are all leaves.

Shape suffixes: T tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sppo.kernels import Head, linear_logprob
from sppo.kernels.linear.reference import linear_logprob_reference

Found = tuple[Tensor, Tensor | None, Tensor]
HEAD = ("weight_VH", "bias", "temperature", "softcap", "factor")


def by_name(function: Callable[..., Found]) -> Callable[..., Found]:
    """The function with the fields of its head among its own arguments."""

    def call(hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor, **options: Any) -> Found:
        fields = {name: options.pop(name) for name in HEAD if name in options}
        return function(hidden_TH, target_T, Head(weight_VH=weight_VH, **fields), **options)

    return call


chunked, reference = by_name(linear_logprob), by_name(linear_logprob_reference)


def inputs(
    tokens: int, hidden: int, vocabulary: int, dtype: torch.dtype, scale: float = 1.0
) -> dict[str, Tensor]:
    torch.manual_seed(tokens + vocabulary)
    return {
        "hidden_TH": (torch.randn(tokens, hidden) * scale).to(dtype),
        "weight_VH": torch.randn(vocabulary, hidden).to(dtype),
        "target_T": torch.randint(0, vocabulary, (tokens,)),
    }


def wide(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers in float64."""
    return {k: v.double() if v.is_floating_point() else v for k, v in data.items()}


def evaluate(
    function: Any,
    data: dict[str, Tensor],
    upstream_T: Tensor,
    entropy_share: float = 0.0,
    **options: Any,
) -> list[Tensor]:
    """Values, then the gradient of every floating input."""
    leaves = {
        k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in data.items()
    }
    logprob_T, entropy_T, lse_T = function(**leaves, return_entropy=True, **options)
    total = (1 - entropy_share) * (logprob_T * upstream_T).sum()
    if entropy_share:
        total = total + entropy_share * (entropy_T * upstream_T.flip(0)).sum()
    total.backward()
    grads = [v.grad for v in leaves.values() if v.requires_grad]
    return [t.detach().double() for t in (logprob_T, entropy_T, lse_T, *grads)]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-30))
