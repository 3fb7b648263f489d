"""A mixture's experts where there are no values to choose them by: each has an equal share.

What experts keep of the tokens that come to them is the same in sum, however they are shared out.
Most families' experts ask for no numbers (grouped products); two do:

    JetMoe      counts, one by one ── split(counts)             tokens in order of experts
    LongCat     nonzero of all experts ── where of one          expert by expert
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.overrides import TorchFunctionMode


def even(layers: nn.ModuleList) -> None:
    """From now on the experts of these layers have equal shares."""
    for layer in layers:
        layer.forward = _evenly(layer.forward)


def _evenly(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        with Evenly():
            return forward(*args, **kwargs)

    return run


class Evenly(TorchFunctionMode):
    """Around a layer's forward on tensors without values."""

    def __init__(self) -> None:
        super().__init__()
        self._experts = 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.item:
            return _item(args[0])
        if func is Tensor.split and isinstance(args[1], list) and not any(args[1]):
            return _split(*args, **(kwargs or {}))
        if func is Tensor.nonzero and args[0].ndim == 1:
            self._experts = len(args[0])
            return [torch.tensor([expert]) for expert in range(self._experts)]
        if func is torch.where and len(args) == 1:
            return self._tokens(args[0])
        return func(*args, **(kwargs or {}))

    def _tokens(self, chosen: Tensor) -> tuple[Tensor, ...]:
        """Of one expert, `chosen` [choices, tokens]: where it is the choice, in each dimension."""
        count = -(-chosen.numel() // self._experts)
        return tuple(chosen.new_empty(count, dtype=torch.int64) for _ in range(chosen.ndim))


def _item(value: Tensor) -> Any:
    """0 where nobody knows."""
    try:
        return value.item()
    except DataDependentOutputException:
        return 0


def _split(value: Tensor, counts: list[int], dim: int = 0) -> Any:
    """In as many parts, all of equal sizes or one more."""
    least, more = divmod(value.shape[dim], len(counts))
    return torch.split(value, [least + (i < more) for i in range(len(counts))], dim)
