"""Sums and means over consecutive segments."""

from __future__ import annotations

import torch

from sppo.kernels.segments import owners, segment_mean, segment_sum

OFFSETS = torch.tensor([0, 2, 2, 5])
VALUES = torch.tensor([1.0, 2.0, 3.0, 4.0, 8.0])


def test_each_element_belongs_to_its_segment() -> None:
    assert owners(OFFSETS, 5).tolist() == [0, 0, 2, 2, 2]


def test_an_empty_segment_sums_to_0() -> None:
    assert segment_sum(VALUES, OFFSETS).tolist() == [3, 0, 15]


def test_the_mean_is_that_of_the_elements_that_take_part() -> None:
    part_T = torch.tensor([True, True, True, True, False])
    assert segment_mean(VALUES, OFFSETS, part_T).tolist() == [1.5, 1.5, 3.5, 3.5, 3.5]
    part_T = torch.tensor([False, False, True, True, True])
    assert segment_mean(VALUES, OFFSETS, part_T).tolist() == [0, 0, 5, 5, 5]


def test_who_takes_no_part_may_hold_nan() -> None:
    values_T = torch.tensor([1.0, torch.nan])
    found_T = segment_mean(values_T, torch.tensor([0, 2]), torch.tensor([True, False]))
    assert found_T.tolist() == [1, 1]
