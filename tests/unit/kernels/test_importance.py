"""Off-policy weights: who has one, and who takes part in the mean of a group."""

from __future__ import annotations

import math

import pytest
import torch

from sppo.kernels import CAPS, WEIGHTS, sequence_weights
from sppo.kernels.importance import log_cap, weigh

LOG_RHO = torch.tensor([0.0, 3.0, -3.0, 0.0])
LENGTH = torch.tensor([4.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize("mode", WEIGHTS)
def test_who_has_no_token_that_counts_has_no_weight_and_takes_no_part(mode: str) -> None:
    weight_N, _, part_N = weigh(mode, LOG_RHO, LENGTH, log_cap(mode, None))
    assert weight_N[3] == 0
    assert not part_N[3]
    assert sequence_weights(mode, LOG_RHO, LENGTH)[0].tolist() == weight_N.tolist()


def test_only_masked_rejects() -> None:
    parts = {
        mode: weigh(mode, LOG_RHO, LENGTH, log_cap(mode, None))[2].tolist() for mode in WEIGHTS
    }
    assert parts.pop("masked") == [True, False, False, False]
    assert all(part == [True, True, True, False] for part in parts.values())


def test_a_small_weight_is_not_a_rejection() -> None:
    weight_N, _, part_N = weigh(
        "sequence", torch.tensor([-800.0]), torch.tensor([9.0]), math.log(2)
    )
    assert weight_N.tolist() == [0]
    assert part_N.tolist() == [True]


def test_each_mode_has_its_own_cap() -> None:
    assert WEIGHTS.keys() == CAPS.keys()
    assert log_cap("geometric", None) == math.log(1.2)
    assert log_cap("geometric", 3.0) == math.log(3)
