"""[learner] by itself."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.config import LearnerConfig


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mini_batches": 3}, "mini_batches = 3 must divide groups_per_step = 8"),
        ({"mini_batches": 4, "steps": 30}, "mini_batches = 4 must divide steps = 30"),
        ({"epochs": 7}, "mini_batches = 1 x epochs = 7 must divide steps = 60"),
        ({"refill": 0.5}, "greater than or equal to 1"),
        ({"refill": 1.1}, r"refill = 1.1 adds no whole group to each of mini_batches = 1 of"),
        ({"mini_batches": 4, "refill": 1.4}, r"refill = 1.4 adds no whole group"),
        ({"refill": 2, "max_staleness": 4}, "refill = 2 and max_staleness = 4 would issue"),
        ({"max_staleness": -1}, "greater than or equal to 0"),
        ({"kernels": "triton", "device": "cpu"}, "kernels = 'triton' needs a GPU"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LearnerConfig(**settings)


def test_a_batch_is_trained_in_each_mini_batch_of_each_epoch() -> None:
    assert LearnerConfig(mini_batches=2, epochs=3).steps_per_batch == 6
