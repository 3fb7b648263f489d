"""Layouts must not change log-probs, and a plan keeps its budget."""

from __future__ import annotations

import pytest
import torch

from sppo.families import Rows
from sppo.learner import batching
from sppo.types import Group
from tests.unit.learner.tiny import (
    one_by_one,
    policy,
)


@pytest.mark.parametrize("rows", ["packed", "completion"])
@pytest.mark.parametrize("budget", [20, 10_000])
def test_packed_log_probs_are_those_of_each_completion_alone(
    path: str, groups: list[Group], rows: Rows, budget: int
) -> None:
    model = policy(path)
    for parts in batching.plan(groups, budget, rows):
        batch = batching.collate(groups, parts, rows=rows, device="cpu")
        logprob_T, entropy_T = model.logprobs(batch, entropy=True)
        expected = [one_by_one(model, groups[p.group])[p.start : p.stop] for p in parts]
        expected_T = torch.cat([t for part in expected for t in part])
        assert torch.allclose(logprob_T, expected_T, atol=1e-5)
        assert entropy_T is not None
        assert (entropy_T > 0).all()


@pytest.mark.parametrize("rows", ["packed", "group", "completion"])
@pytest.mark.parametrize("budget", [1, 12, 20, 60])
def test_a_plan_covers_every_completion_once_within_its_budget(
    groups: list[Group], rows: Rows, budget: int
) -> None:
    plan = batching.plan(groups, budget, rows)
    covered = sorted((p.group, k) for parts in plan for p in parts for k in range(p.start, p.stop))
    assert covered == [(i, k) for i, g in enumerate(groups) for k in range(len(g.completions))]
    for parts in plan:
        batch = batching.collate(groups, parts, rows=rows, device="cpu")
        alone = len(parts) == 1 and parts[0].stop - parts[0].start == 1
        assert alone or batch.tokens_BL.numel() <= budget
    if budget == 60:  # no group is that large
        assert sorted(p.group for parts in plan for p in parts) == list(range(len(groups)))


def test_one_row_holds_what_fits_without_padding(groups: list[Group]) -> None:
    total = sum(sum(batching.row_tokens(g, True)) for g in groups)
    (parts,) = batching.plan(groups, total, "packed")
    batch = batching.collate(groups, parts, rows="packed", device="cpu")
    assert batch.tokens_BL.shape == (1, total)
    assert batch.padding == 0
    assert len(batching.plan(groups, total - 1, "packed")) == 2
