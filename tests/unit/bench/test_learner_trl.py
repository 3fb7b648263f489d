"""Groups as GRPOTrainer lays them out."""

from __future__ import annotations

import torch

from sppo.bench import learner_trl
from tests import makers


def test_prompts_are_padded_on_the_left_and_completions_on_the_right() -> None:
    made = learner_trl.batch_of([makers.group(size=2)])
    assert made["prompt_ids"].tolist() == [[1, 2, 3]] * 2
    assert made["completion_ids"].tolist() == [[4, 0], [5, 5]]
    assert made["completion_mask"].tolist() == [[1, 0], [1, 1]]
    assert int(made["num_items_in_batch"]) == 3


def test_advantages_are_within_a_group() -> None:
    made = learner_trl.batch_of([makers.group(size=3), makers.group("train-000000001", size=2)])
    first, second = made["advantages"][:3], made["advantages"][3:]
    assert torch.allclose(first, torch.tensor([-1.0, 0.0, 1.0]), atol=1e-3)
    assert float(second.sum()) == 0
