"""The whole mini-batch on rank 0, for a loss that must see all of it, and its gradient handed out.

Shape suffixes: T completion tokens, N completions, K completions of one group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppo.learner.objectives import ObjectiveBatch
from sppo.learner.ranks import Ranks

Cotangents = tuple[Tensor, Tensor]
"""dL/dlogprob and dL/dentropy [T]."""

_FLOATS = ("logprob_T", "entropy_T", "anchor_T", "behavior_T", "reference_T", "target_N",
           "rewards_N")  # fmt: skip
_TRUTHS = ("keep_N", "finished_N")
_PLAIN = ("completions", "tokens", "groups", "own_anchor", "kernels")


def together(
    team: Ranks, mine: ObjectiveBatch | None,
    differentiate: Callable[[ObjectiveBatch], Cotangents], device: str,
) -> Cotangents | None:  # fmt: skip
    """Every rank: its part of what `differentiate` makes, on rank 0, of all parts laid end to end.
    None stands for a rank without a part.
    """
    packed = team.gather(None if mine is None else _pack(mine))
    answers: list[list[bytes] | None] = [None] * len(packed)
    there = {rank: _unpack(part, device) for rank, part in enumerate(packed) if part is not None}
    if there:
        found = differentiate(_join(list(there.values())))
        at = 0
        for rank, part in there.items():
            end = at + len(part.logprob_T)
            answers[rank] = [_bytes(values_T[at:end]) for values_T in found]
            at = end
    own = team.broadcast(answers)[team.rank]
    if own is None or mine is None:
        return None
    logprob_T, entropy_T = (_floats(data, device) for data in own)
    return logprob_T, entropy_T


def _pack(batch: ObjectiveBatch) -> dict[str, Any]:
    """As plain msgpack types."""
    values = {name: getattr(batch, name) for name in (*_FLOATS, *_TRUTHS)}
    preferences = batch.preferences
    return {
        **{name: None if v is None else _bytes(v) for name, v in values.items()},
        "lengths": batch.length_N.tolist(),
        "sizes": batch.group_offsets.diff().tolist(),
        "preferences": preferences and [_bytes(matrix_KK) for matrix_KK in preferences],
        **{name: getattr(batch, name) for name in _PLAIN},
    }


def _unpack(given: dict[str, Any], device: str) -> ObjectiveBatch:
    """Inverse of `_pack`."""
    sizes, matrices = given["sizes"], given["preferences"]
    values: dict[str, Any] = {
        **{name: None if given[name] is None else _floats(given[name], device) for name in _FLOATS},
        **{name: _floats(given[name], device) != 0 for name in _TRUTHS},
        **{name: given[name] for name in _PLAIN},
    }
    return ObjectiveBatch(
        cu_seqlens=_offsets(given["lengths"], device),
        group_offsets=_offsets(sizes, device),
        preferences=matrices
        and tuple(_floats(m, device).reshape(k, k) for m, k in zip(matrices, sizes, strict=True)),
        **values,
    )


def _join(parts: Sequence[ObjectiveBatch]) -> ObjectiveBatch:
    """All of them as one."""
    values: dict[str, Any] = {}
    for name in (*_FLOATS, *_TRUTHS):
        found = [getattr(part, name) for part in parts]
        values[name] = None if found[0] is None else torch.cat(found)
    device = str(parts[0].logprob_T.device)
    matrices = [m for part in parts for m in part.preferences or ()]
    return replace(
        parts[0],
        cu_seqlens=_offsets([n for part in parts for n in part.length_N.tolist()], device),
        group_offsets=_offsets(
            [n for part in parts for n in part.group_offsets.diff().tolist()], device
        ),
        preferences=tuple(matrices) if parts[0].preferences is not None else None,
        **values,
    )


def _offsets(lengths: Sequence[int], device: str) -> Tensor:
    return torch.tensor([0, *np.cumsum(lengths).tolist()], device=device)


def _bytes(values: Tensor) -> bytes:
    data: bytes = values.detach().float().cpu().numpy().tobytes()
    return data


def _floats(data: bytes, device: str) -> Tensor:
    if not data:
        return torch.zeros(0, device=device)
    return torch.frombuffer(bytearray(data), dtype=torch.float32).to(device)
