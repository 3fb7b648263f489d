"""A loss over the whole mini-batch on rank 0, and its gradient on each rank."""

from __future__ import annotations

import pytest
import torch

from sppo.learner import feed, gathered
from sppo.learner.feed import Tokens
from sppo.learner.objectives import ObjectiveBatch
from sppo.learner.shares import Item, Sizes
from sppo.types import Group
from tests.unit.learner import teams
from tests.unit.learner.tiny import compared


def batch(groups: list[Group], seed: int) -> ObjectiveBatch:
    items = [Item.of(g, [True] * (k := len(g.completions)), [True] * k, None, idle=False)
             for g in groups]  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    values_T = torch.randn(4, sum(g.tokens for g in groups), generator=generator)
    tokens = Tokens(
        logprob_T=values_T[0], entropy_T=values_T[1], anchor_T=values_T[2], reference_T=None
    )
    sizes = Sizes(completions=9, tokens=30, groups=3)
    return feed.objective_batch(items, tokens, sizes, own_anchor=False, kernels="torch")


@pytest.mark.parametrize("preferences", [False, True])
def test_rank_0_sees_all_parts_and_each_rank_gets_its_own_gradient(
    groups: list[Group], preferences: bool
) -> None:
    # Given three ranks, the second without a part
    groups = compared(groups) if preferences else groups
    parts = [batch(groups[:2], 1), None, batch(groups[2:3], 2)]
    seen: list[ObjectiveBatch] = []

    def differentiate(whole: ObjectiveBatch) -> gathered.Cotangents:
        seen.append(whole)
        return 2 * whole.logprob_T, whole.entropy_T + 1

    found = teams.together(
        3, lambda team: gathered.together(team, parts[team.rank], differentiate, "cpu")
    )
    # Then it was evaluated once, on all of it in order
    assert len(seen) == 1
    expected = batch(groups[:3], 0)
    for name in ("behavior_T", "cu_seqlens", "group_offsets", "keep_N", "finished_N"):
        assert torch.equal(getattr(seen[0], name), getattr(expected, name)), name
    assert (seen[0].completions, seen[0].tokens, seen[0].groups) == (9, 30, 3)
    assert seen[0].reference_T is None
    assert (seen[0].rewards_N is None) is preferences
    if preferences:
        pairs = zip(seen[0].preferences or (), expected.preferences or (), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    # and each part has its gradient, to the bit
    assert found[1] is None
    for given, mine in zip(parts, found, strict=True):
        if given is not None:
            assert mine is not None
            assert torch.equal(mine[0], 2 * given.logprob_T)
            assert torch.equal(mine[1], given.entropy_T + 1)
