"""Experts without values have equal shares."""

from __future__ import annotations

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sppo.plan import routing


class Counting(nn.Module):
    """Tokens in order of experts, so many for each."""

    def forward(self, x: torch.Tensor) -> list[int]:
        counts = (x > 0).long().sum(0)
        return [len(part) for part in x.split(counts.tolist())]


class OneByOne(nn.Module):
    """The experts that someone chose, one after the other."""

    def forward(self, chosen: torch.Tensor) -> list[tuple[int, int, int]]:
        found = []
        for number in (chosen.sum((-1, -2)) > 0).nonzero():
            expert = int(number.item())
            choice, token = torch.where(chosen[expert])
            found.append((expert, len(choice), len(token)))
        return found


def test_counts_that_nobody_knows_are_equal_or_one_apart() -> None:
    layers = nn.ModuleList([Counting()])
    routing.even(layers)
    with FakeTensorMode():
        assert layers[0](torch.ones(7, 3)) == [3, 2, 2]
        assert [len(p) for p in torch.ones(4).split([1, 3])] == [1, 3]


def test_each_of_several_experts_is_chosen_for_its_share() -> None:
    layers = nn.ModuleList([OneByOne()])
    routing.even(layers)
    with FakeTensorMode():
        chosen = torch.ones(4, 2, 6, dtype=torch.int64)  # experts, choices, tokens
        assert layers[0](chosen) == [(expert, 3, 3) for expert in range(4)]
