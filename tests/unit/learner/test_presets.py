"""The presets of public data train on a few rows in the published formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sppo import config
from tests import published
from tests.unit.learner.test_assemble import Life, model, records

__all__ = ["model"]
TESTS = "tests.unit.judges"


@pytest.mark.parametrize(
    ("preset", "scorer"), [("gsm8k", "even"), ("math", "even"), ("ultrafeedback", "judge")]
)
def test_a_preset_trains_on_rows_in_its_format(
    preset: str, scorer: str, model: str, tmp_path: Path
) -> None:
    small = {
        "model.name": model, "task.name": f"jsonl:{published.ROWS / preset}.jsonl",
        "task.held_out": 1, "sampling.max_tokens": 4, "optimizer.lr": 1e-3,
        "learner.steps": 1, "learner.groups_per_step": 2, "learner.parity_threshold": 100,
        "learner.device": "cpu", "learner.threads": 1,
        "scorer.name": f"{TESTS}:{scorer}", "scorer.mode": "inline",
    }  # fmt: skip
    settings = config.load(preset, [f"{key}={json.dumps(value)}" for key, value in small.items()])
    outcome = Life(settings, tmp_path).run()
    assert outcome["finished"]
    assert [line["step"] for line in records(tmp_path)] == [1]
    assert len(outcome["evaluations"]) == 2
