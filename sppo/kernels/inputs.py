"""What the operations share: which path runs, and what bad input is told.

Shapes, dtypes and devices are checked here without looking at a value, so that a compiled graph
stays whole and a GPU is never waited for. Values are checked inside the operations, on a CPU only.
"""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "triton", "torch", "reference"]
"""`auto` is `triton` on a GPU where Triton is installed, `torch` elsewhere; `reference`
materialises all logits.
"""

TRITON_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
DTYPES = (*TRITON_DTYPES, torch.float64)
HAS_TRITON = find_spec("triton") is not None


def pick_backend(backend: Backend, inputs: Tensor) -> Literal["triton", "torch"]:
    """The path for these inputs. Raises ValueError for a name not known, and where `triton` cannot
    run.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend {backend!r}: there are {', '.join(get_args(Backend))}")
    if backend in ("torch", "reference"):
        return "torch"
    device, interpreted = inputs.device.type, os.environ.get("TRITON_INTERPRET") == "1"
    if (
        HAS_TRITON
        and inputs.dtype in TRITON_DTYPES
        and (device == "cuda" or (backend == "triton" and interpreted))
    ):
        return "triton"
    if backend == "triton":
        raise ValueError(
            f"backend 'triton' with inputs {inputs.dtype} on {device}: expected Triton to be "
            f"installed"
            f" ({'it is' if HAS_TRITON else 'it is not'}) and bfloat16, float16 or float32 on a GPU"
        )
    return "torch"


def launching_on(inputs: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device: make it that of the inputs."""
    return torch.cuda.device(inputs.device) if inputs.is_cuda else nullcontext()


def check_whole(**inputs: Tensor | None) -> None:
    """Raises ValueError for a tensor of which this rank holds a part, a DTensor."""
    for name, tensor in inputs.items():
        if hasattr(tensor, "full_tensor"):
            raise ValueError(
                f"{name} is a DTensor: expected a whole tensor, as inside the forward of FSDP, or "
                f".full_tensor()"
            )


def only_above_0(temperature_T: Tensor) -> Tensor:
    """NaN instead of a temperature that is not above 0, where nobody waits to see it."""
    return torch.where(temperature_T > 0, temperature_T, torch.nan)


def check_target(target_T: Tensor, tokens: int, device: torch.device) -> None:
    """Raises ValueError unless it is int64 [T] on this device."""
    if target_T.shape != (tokens,) or target_T.dtype != torch.int64 or target_T.device != device:
        raise ValueError(f"target_T is {describe(target_T)}: expected int64 [{tokens}] on {device}")


def spread_temperature(temperature: float | Tensor, inputs: Tensor, factor: float = 1.0) -> Tensor:
    """One temperature / factor a token, [T] in the dtype of the logits; no gradient flows to it.

    Raises ValueError for a number that is not above 0 and a tensor that is not [T] on the inputs'
    device.
    """
    tokens, dtype = inputs.shape[0], torch.promote_types(inputs.dtype, torch.float32)
    if not isinstance(temperature, Tensor):
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature}: expected a finite number above 0")
        return torch.full((tokens,), temperature / factor, dtype=dtype, device=inputs.device)
    if (
        temperature.shape != (tokens,)
        or not temperature.is_floating_point()
        or temperature.device != inputs.device
    ):
        raise ValueError(
            f"temperature is {describe(temperature)}: expected float [{tokens}] on {inputs.device}"
        )
    return (temperature.detach() / factor).to(dtype).contiguous()


def check_softcap(softcap: float | None) -> None:
    """Raises ValueError unless it is None or a finite number above 0."""
    if softcap is not None and not 0 < softcap < math.inf:
        raise ValueError(f"softcap is {softcap}: expected None or a finite number above 0")


def check_values(
    target_T: Tensor, temperature_T: Tensor, vocabulary: int, ignore_index: int
) -> None:
    """Raises ValueError for a target outside the vocabulary or a temperature not above 0. Reads the
    values.
    """
    outside_T = ((target_T < 0) | (target_T >= vocabulary)) & (target_T != ignore_index)
    if outside_T.any():
        raise ValueError(
            f"target_T {list(target_T.shape)} holds {int(target_T[outside_T][0])}: expected 0 to "
            f"{vocabulary - 1}, or"
            f" {ignore_index} for a token to ignore"
        )
    if not (temperature_T > 0).all():
        raise ValueError(
            f"temperature [{len(temperature_T)}] holds {float(temperature_T.min())}: expected "
            f"above 0"
        )


def check_result(lse_T: Tensor, **inputs: Tensor | None) -> None:
    """Raises ValueError naming the first input that holds NaN or infinity, where the result is not
    finite.

    −inf alone is no fault: it takes a token out of the vocabulary. Reads the values.
    """
    if lse_T.isfinite().all():
        return
    for name, tensor in inputs.items():
        if tensor is not None and not (tensor < torch.inf).all():
            raise ValueError(
                f"{name} {list(tensor.shape)} holds NaN or infinity: expected finite numbers"
            )
    shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in inputs.items() if t is not None)
    raise ValueError(f"{shapes}: the logits of a token are not finite; expected finite numbers")


def require(holds: Tensor, words: str) -> None:
    """Raise ValueError(words) unless the boolean scalar holds; on a GPU the device asserts and
    nobody waits for it.
    """
    if holds.is_cuda:
        torch._assert_async(holds, words)
    elif not bool(holds):
        raise ValueError(words)


def describe(tensor: Tensor) -> str:
    """`float32 [3, 4] on cpu`."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"
