"""The optimizer's moments in host memory: beside a parameter while it is updated, and only then.

The numbers are those of a step over all parameters at once, which looks at each by itself too. A
step moves the moments to the device and back: 16 bytes of traffic for a parameter with AdamW, 8
with RMSprop. On the device are at most the moments of the largest weight (of a rank's rows of it).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from sppo.learner.rows import local


@torch.no_grad()
def step(inner: torch.optim.Optimizer) -> None:
    """`inner.step()` with moments that are in host memory before and after."""
    (group,) = inner.param_groups
    parameters = group["params"]
    try:
        for parameter in parameters:
            group["params"] = [parameter]
            _one(inner, parameter)
    finally:
        group["params"] = parameters
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # what was copied to the host may be read from here on


def parked(state: dict[str, Tensor], place: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The moments of one parameter in host memory, pinned where a GPU fetches them: in `place`, if
    they have one there.
    """
    return {key: _put(value, (place or {}).get(key)) for key, value in state.items()}


def _one(inner: torch.optim.Optimizer, parameter: Any) -> None:
    host = dict(inner.state.get(parameter, {}))
    device = local(parameter).device
    if host:
        inner.state[parameter] = {key: _fetched(value, device) for key, value in host.items()}
    inner.step()
    inner.state[parameter] = parked(inner.state[parameter], host)


def _fetched(value: Tensor, device: torch.device) -> Tensor:
    return _like(value, local(value).to(device, non_blocking=True, copy=True))


def _put(value: Tensor, place: Tensor | None) -> Tensor:
    own = local(value)
    new = place is None
    if place is None:
        place = _like(value, torch.empty(own.shape, dtype=own.dtype, pin_memory=own.is_cuda))
    local(place).copy_(own, non_blocking=not new)  # `step` waits for all at its end
    return place


def _like(value: Any, part: Tensor) -> Tensor:
    """A rank's part as the tensor that `value` is a part of; a mesh of GPUs may have one on the
    host.
    """
    if not isinstance(value, DTensor):
        return part
    made: Tensor = DTensor(part, value._spec, requires_grad=False)  # type: ignore[no-untyped-call]
    return made
