"""What bad input to the loss is told. Shape suffixes: T completion tokens, N completions."""

from __future__ import annotations

import torch
from torch import Tensor

from sppo.kernels.inputs import describe, require
from sppo.kernels.loss.call import Tokens


def check_tokens(tokens: Tokens) -> None:
    """Raises ValueError naming what does not fit the rest."""
    logprob_T, anchor_T, behavior_T, mask_T, cu_seqlens = tokens
    expected = f"expected a floating [{logprob_T.numel()}] on {logprob_T.device}, as logprob_T"
    if logprob_T.ndim != 1 or not logprob_T.is_floating_point():
        raise ValueError(f"logprob_T is {describe(logprob_T)}: expected a floating [T]")
    for name, values_T in (("anchor_T", anchor_T), ("behavior_T", behavior_T)):
        if _unlike(values_T, logprob_T) or not values_T.is_floating_point():
            raise ValueError(f"{name} is {describe(values_T)}: {expected}")
    if mask_T is not None and _unlike(mask_T, logprob_T):
        raise ValueError(f"mask_T is {describe(mask_T)}: {expected.replace('floating', 'bool')}")
    _check_offsets("cu_seqlens", cu_seqlens, len(logprob_T), logprob_T)


def check_groups(tokens: Tokens, targets_N: Tensor, group_offsets: Tensor) -> None:
    """Raises ValueError for targets or groups that are not those of the completions."""
    logprob_T, completions = tokens.logprob_T, len(tokens.cu_seqlens) - 1
    if (
        targets_N.shape != (completions,)
        or targets_N.device != logprob_T.device
        or not targets_N.is_floating_point()
    ):  # fmt: skip
        raise ValueError(
            f"targets_N is {describe(targets_N)}: expected a floating [{completions}] on "
            f"{logprob_T.device},"
            " one for each completion of cu_seqlens"
        )
    _check_offsets("group_offsets", group_offsets, completions, logprob_T)


def _check_offsets(name: str, offsets: Tensor, total: int, like: Tensor) -> None:
    if (
        offsets.ndim != 1
        or not len(offsets)
        or offsets.dtype not in (torch.int32, torch.int64)
        or offsets.device != like.device
    ):
        raise ValueError(
            f"{name} is {describe(offsets)}: expected int32 or int64 offsets on {like.device}"
        )
    if not torch.compiler.is_compiling():
        whole = (offsets[0] == 0) & (offsets[-1] == total) & (offsets.diff() >= 0).all()
        require(
            whole, f"{name} {list(offsets.shape)}: expected offsets that rise from 0 to {total}"
        )


def _unlike(values_T: Tensor, logprob_T: Tensor) -> bool:
    return values_T.shape != logprob_T.shape or values_T.device != logprob_T.device
