"""What the device code of several operations shares: constants of Triton's language."""

from __future__ import annotations

import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-1e30)  # stands for −inf: the difference of two is 0, not NaN
VARYING = (
    "tokens",
    "vocabulary",
    "columns",
    "first_column",
    "first_split",
    "splits",
    "ignore_index",
)
"""Arguments that gain nothing from a kernel of their own for multiples of 16: batches of all sizes
share one.
"""
