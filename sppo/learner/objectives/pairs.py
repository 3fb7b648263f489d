"""Pairs of completions of one group, for objectives that compare two at a time.

Shape suffixes: N completions, G groups, P pairs.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def all_pairs(group_offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(first [P], second [P], group [P]): every pair i < j of each group, as positions in N."""
    first, second, group = [], [], []
    offsets = group_offsets.tolist()
    for g, (begin, end) in enumerate(itertools.pairwise(offsets)):
        i_P, j_P = torch.triu_indices(end - begin, end - begin, offset=1) + begin
        first.append(i_P)
        second.append(j_P)
        group.append(torch.full_like(i_P, g))
    empty = [torch.zeros(0, dtype=torch.int64)]
    i_P, j_P, group_P = (torch.cat(parts or empty) for parts in (first, second, group))
    device = group_offsets.device
    return i_P.to(device), j_P.to(device), group_P.to(device)


def whole_groups(keep_N: Tensor, group_offsets: Tensor) -> Tensor:
    """`keep_N` without those that are the only kept one of their group: they have no partner."""
    sizes_G = group_offsets.diff()
    index_N = torch.repeat_interleave(torch.arange(len(sizes_G)), sizes_G)
    kept_G = torch.zeros(len(sizes_G), dtype=torch.int64).index_add(0, index_N, keep_N.long())
    return keep_N & (kept_G[index_N] > 1)
