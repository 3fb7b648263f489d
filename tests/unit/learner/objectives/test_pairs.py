"""Pairs of completions of one group."""

from __future__ import annotations

import torch

from sppo.learner.objectives.pairs import all_pairs, whole_groups


def test_every_pair_of_each_group_once() -> None:
    first, second, group = all_pairs(torch.tensor([0, 2, 2, 3, 6]))
    pairs = list(zip(first.tolist(), second.tolist(), group.tolist(), strict=True))
    assert pairs == [(0, 1, 0), (3, 4, 3), (3, 5, 3), (4, 5, 3)]


def test_no_groups_have_no_pairs() -> None:
    assert all(len(part) == 0 for part in all_pairs(torch.tensor([0])))


def test_one_without_a_partner_is_not_kept() -> None:
    keep_N = torch.tensor([True, False, True, True, False])
    assert whole_groups(keep_N, torch.tensor([0, 2, 5])).tolist() == [
        False,
        False,
        True,
        True,
        False,
    ]
