"""examples/objective/ipo.py against its formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sppo.learner.objectives import make
from tests.unit.learner.objectives import makers

EXAMPLES = Path(__file__).parents[4] / "examples" / "objective"


def test_the_example_is_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    objective = make(makers.settings(name="ipo:Ipo", params={"tau": 0.5}))
    rewards_N = torch.tensor([0.0, 1, 2, 2, 2, 5, 3, 1, 4], dtype=torch.float64)
    batch = makers.random_batch(rewards_N=rewards_N)
    gap = [
        total / n
        for total, n in zip(
            makers.summed(batch.logprob_T, batch.reference_T), makers.LENGTHS, strict=True
        )
    ]
    h = [gap[1] - gap[0], gap[5] - gap[7]]  # the second group has no pair
    loss, stats = makers.evaluate(objective, batch)
    assert float(loss) == pytest.approx(sum((x - 1.0) ** 2 for x in h) / 2)
    assert objective.summary(stats)["ipo_gap"] == pytest.approx(sum(h) / 2)
    assert makers.off_differences(objective, batch) < 1e-6
