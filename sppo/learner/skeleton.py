"""A model without its weights: its modules, the names and shapes of its parameters, its buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sppo.families import Family
from sppo.learner import attention


def skeleton(config: Any, family: Family) -> Any:
    """The model of a Transformers configuration, float32, on no device, however large; buffers,
    which no file holds, are there.
    """
    from transformers import AutoModelForCausalLM

    attention.install()
    with _parameters_on_meta(), _WithoutMemory():
        model = AutoModelForCausalLM.from_config(
            config,
            dtype=torch.float32,
            attn_implementation=family.attention,
            trust_remote_code=False,
        )
    model.tie_weights()
    return model.eval()


class _WithoutMemory(TorchFunctionMode):
    """`torch.empty`, of which layers make their weights, on no device: experts of one layer may be
    larger than this machine. Buffers are made of values, by other functions.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.empty and not (kwargs or {}).get("device"):
            kwargs = (kwargs or {}) | {"device": "meta"}
        return func(*args, **(kwargs or {}))


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    plain = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.data.to("meta"), requires_grad=param.requires_grad)
        plain(self, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = plain  # type: ignore[method-assign]
