"""The flat arguments of the operation and of its backward pass.

Shape suffixes: T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Call(NamedTuple):
    """One call of the operation."""

    logits_TV: Tensor
    target_T: Tensor
    temperature_T: Tensor
    softcap: float | None
    ignore_index: int
    return_entropy: bool
    inplace_backward: bool
    backend: str


TENSORS = 3
"""Fields of `Call` that are tensors: the first ones."""


class Upstream(NamedTuple):
    """What its backward pass is given besides: results, their gradients, where to write its own."""

    logprob_T: Tensor
    lse_T: Tensor
    entropy_T: Tensor
    grad_T: Tensor
    entropy_grad_T: Tensor | None
    into_TV: Tensor
