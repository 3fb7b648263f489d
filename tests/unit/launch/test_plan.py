"""What `--dry-run` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo import config
from sppo.launch import plan


@pytest.mark.parametrize("preset", config.presets())
def test_every_preset_can_be_planned_without_a_gpu(preset: str) -> None:
    text = "\n".join(plan.describe(config.load(preset), Path("runs/x")))
    assert "tickets in flight" in text
    assert "broker memory" in text


def test_the_plan_counts_tickets_and_bytes() -> None:
    text = "\n".join(
        plan.describe(config.load("quickstart", ["generator.replicas=3"]), Path("runs/x"))
    )
    assert "tickets in flight 16: 8 in use and 1 batches ahead" in text
    assert "3 × vllm" in text
    assert "groups of at most 1.0 KiB" in text  # 8 completions of 16 tokens, 8 bytes each
