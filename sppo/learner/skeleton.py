"""A model without its weights: its modules, the names and shapes of its parameters, its buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sppo.families import Family
from sppo.learner import attention, scan


def skeleton(config: Any, family: Family, compute: torch.dtype = torch.float32) -> Any:
    """The model of a Transformers configuration, its parameters float32 and on no device, however
    large; buffers are there, as they are where it computes in `compute`. Those that files hold too
    (`stored_buffers`) have the values with which they begin.
    """
    from transformers import AutoModelForCausalLM

    attention.install()
    with _parameters_on_meta(), _WithoutMemory():
        model = AutoModelForCausalLM.from_config(
            config, dtype=compute, attn_implementation=family.attention, trust_remote_code=False
        )
    model.tie_weights()
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    wide = tuple(model._get_dtype_plan(compute))  # as `from_pretrained` keeps them
    for name, buffer in stored_buffers(model).items():
        if any(part in name for part in wide) and buffer.is_floating_point():
            buffer.data = buffer.data.float()
    scan.install(model)
    return model.eval()


def stored_buffers(module: Any) -> dict[str, Tensor]:
    """Buffers that a model's files hold, by name: they are not trained, and differ from model to
    model, such as the biases by which DeepSeek's routers choose experts.
    """
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, part in module.named_modules()
        for name, buffer in part._buffers.items()
        if buffer is not None and name not in part._non_persistent_buffers_set
    }


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
