"""Sums over consecutive segments. Offsets [N + 1] begin at 0 and end at the number of elements."""

from __future__ import annotations

import torch
from torch import Tensor


def owners(offsets: Tensor, total: int) -> Tensor:
    """The segment of each of the `total` elements, int64. The total is given so that a GPU is not
    waited for.
    """
    lengths_N = offsets.diff()
    index_N = torch.arange(len(lengths_N), device=offsets.device)
    return torch.repeat_interleave(index_N, lengths_N, output_size=total)


def segment_sum(values_T: Tensor, offsets: Tensor) -> Tensor:
    """[T] and offsets [N + 1] to the sum of each segment [N]. On a GPU the order of its sums is not
    fixed.
    """
    owner_T = owners(offsets, len(values_T))
    return torch.zeros(len(offsets) - 1, dtype=values_T.dtype, device=values_T.device).index_add(
        0, owner_T, values_T
    )


def segment_mean(values_T: Tensor, offsets: Tensor, part_T: Tensor) -> Tensor:
    """[T] and offsets [N + 1] to the mean of each element's segment, [T], over the elements that
    take part; 0 where none does.
    """
    sum_N = segment_sum(torch.where(part_T, values_T, 0.0), offsets)
    mean_N = sum_N / segment_sum(part_T.to(values_T.dtype), offsets).clamp(min=1)
    return mean_N[owners(offsets, len(values_T))]
