"""Metrics from the figures of the parts of a step."""

from __future__ import annotations

import pytest
import torch

from sppo.learner.objectives.summary import mean, std, summarise


def test_what_no_part_has_is_null() -> None:
    found = summarise({})
    assert found["groups_without_weight"] == 0
    assert {v for k, v in found.items() if k != "groups_without_weight"} == {None}
    assert summarise({"residual_N": torch.zeros(0)})["residual_mean"] is None


def test_means_are_over_all_parts_laid_end_to_end() -> None:
    stats = {
        "residual_N": torch.tensor([1.0, 2.0, 3.0]),
        "loss": torch.tensor([0.25, 0.5]),
        "kl_sum": torch.tensor([1.0, 2.0]),
        "kl_tokens": torch.tensor([4.0, 8.0]),
        "weightless": torch.tensor([1.0, 0.0]),
    }
    found = summarise(stats)
    assert (found["residual_mean"], found["residual_std"]) == (2, 1)
    assert (found["loss"], found["kl"], found["groups_without_weight"]) == (0.75, 0.25, 1)


def test_a_single_value_has_no_spread() -> None:
    assert std({"x": torch.tensor([3.0])}, "x") == 0
    assert mean({"x": torch.tensor([3.0])}, "x") == 3


def test_the_effective_sample_size_of_ratios_that_no_float_holds() -> None:
    found = summarise({"log_ratio_N": torch.tensor([800.0, 800.0, -800.0, 0.0])})
    assert found["effective_sample_size_untruncated"] == pytest.approx(0.5)
