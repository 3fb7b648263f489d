"""Element-wise functions that torch compiles for a CPU: one pass over memory instead of several."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

WORTH_COMPILING = 3 << 20
"""Elements from which a call repays, within some calls, the 5 s that a process spends to compile or
to load what was compiled before. A chunk has at most 4 << 20: the head compiles from 384 tokens
on.
"""

RECOMPILE_LIMIT = 64
"""Variants (soft cap, entropy, dtypes, shapes that coincide) after which a new one would run
uncompiled.
"""


class Fused:
    """A function of a tensor, compiled at its first large one; as it is where no C++ compiler is
    found.

    On one machine the size alone decides which of both runs, so equal calls have equal bits.
    """

    def __init__(self, plain: Callable[..., Tensor]) -> None:
        self._plain = plain
        self._compiled: Any = None
        self._can_compile = True

    def __call__(self, first: Tensor, *rest: Any) -> Tensor:
        if first.numel() < WORTH_COMPILING or first.is_cuda or not self._can_compile:
            return self._plain(first, *rest)
        if self._compiled is None:
            # One thread: torch would keep a pool of compiling processes. The limit is not in
            # torch's types.
            options: Any = {"recompile_limit": RECOMPILE_LIMIT, "options": {"compile_threads": 1}}
            self._compiled = torch.compile(self._plain, dynamic=True, **options)
        try:
            found: Tensor = self._compiled(first, *rest)
            return found
        except (
            torch._dynamo.exc.BackendCompilerFailed,
            OSError,
        ) as error:  # no compiler; no place for its files
            self._can_compile = False
            log.warning(
                "%s runs uncompiled, slower: %s",
                self._plain.__name__,
                str(error).strip().splitlines()[0],
            )
            return self._plain(first, *rest)
