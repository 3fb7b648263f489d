"""Mends two silent errors of Triton 3.7.1's interpreter. Import before a kernel runs.

- `tl.dot` multiplies the bit patterns of bfloat16 numbers (triton-lang/triton#11584).
- float32 becomes bfloat16 by truncation; the hardware rounds to the nearest even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

_plain_cast = InterpreterBuilder.cast_impl


def _numbers(handle: Any) -> Any:
    if handle.dtype.scalar == tl.bfloat16:  # stored as its 16 bits
        return (handle.data.astype(np.uint32) << 16).view(np.float32)
    return handle.data


def _dot(
    self: Any, a: Any, b: Any, accumulator: Any, input_precision: Any, max_num_imprecise_acc: Any
) -> Any:
    dtype = accumulator.data.dtype
    product = np.matmul(_numbers(a).astype(dtype), _numbers(b).astype(dtype))
    return TensorHandle(product + accumulator.data, accumulator.dtype.scalar)


def _cast(self: Any, source: Any, to: Any) -> Any:
    if source.dtype.scalar == tl.float32 and to.scalar == tl.bfloat16:
        bits = np.ascontiguousarray(source.data).view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(
            16
        )
        return TensorHandle(
            np.where(np.isnan(source.data), 0x7FC0, rounded).astype(np.uint16), to.scalar
        )
    return _plain_cast(self, source, to)


InterpreterBuilder.create_dot = _dot
InterpreterBuilder.cast_impl = _cast
