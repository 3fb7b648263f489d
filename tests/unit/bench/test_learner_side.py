"""One side's steps, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sppo.bench import learner, learner_side
from sppo.bench.learner_side import Job, Side
from tests import makers


@pytest.fixture
def job(tmp_path: Path) -> Job:
    config = learner.resolved([f"model.name={makers.tiny_model(tmp_path)}", "compute=float32"])
    shape = learner.Shape(
        name="tiny", groups=2, completions=3, prompt=4, shortest=2, longest=5,
        micro_batch_tokens=32,
    )  # fmt: skip
    return learner.job_of(config, shape, steps=2)


def test_groups_are_the_same_for_each_side(job: Job) -> None:
    first, second = (Job(**json.loads(json.dumps(vars_of(job)))).groups() for _ in range(2))
    assert [len(g.completions) for g in first] == [3, 3]
    assert all(2 <= len(c.token_ids) <= 5 for g in first for c in g.completions)
    assert str(first) == str(second)


@pytest.mark.parametrize("side", ["sppo", "padded", "matmul"])
def test_the_first_step_is_not_counted(side: Side, job: Job, tmp_path: Path) -> None:
    found = learner_side.measure(side, job, tmp_path)
    assert len(found.step_s) == 2
    assert all(s > 0 for s in found.step_s)
    assert found.peak_bytes >= 0


def vars_of(job: Job) -> dict[str, object]:
    return {name: getattr(job, name) for name in job.__dataclass_fields__}
