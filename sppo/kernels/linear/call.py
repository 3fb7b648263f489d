"""The flat arguments of the operation and of its backward pass.

Shape suffixes: T tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Call(NamedTuple):
    """One call of the operation."""

    hidden_TH: Tensor
    weight_VH: Tensor
    bias: Tensor | None
    temperature_T: Tensor
    target_T: Tensor
    softcap: float | None
    ignore_index: int
    return_entropy: bool
    fast: bool
    backend: str


TENSORS = 5
"""Fields of `Call` that are tensors: the first ones."""


class Upstream(NamedTuple):
    """What its backward pass is given besides: results, their gradients, which ones are needed."""

    logprob_T: Tensor
    lse_T: Tensor
    entropy_T: Tensor
    grad_T: Tensor
    entropy_grad_T: Tensor | None
    need_hidden: bool
    need_weight: bool
    need_bias: bool
