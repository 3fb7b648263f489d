"""A plan against the memory of a real learner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def test_a_learners_memory_is_within_15_percent_of_its_plan() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.step_memory"],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
        env=os.environ | {"TORCHDYNAMO_DISABLE": "1"},  # a compiler's memory is not the learner's
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["measured"] == pytest.approx(found["planned"], rel=0.15)
