"""Ratios, bars, and what may be set."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sppo.bench import learner
from sppo.bench.learner import Measured, Row, Shape
from sppo.bench.learner_side import SIDES, Found, Side
from sppo.errors import ConfigError, SppoError


def found(**seconds: float) -> dict[Side, list[Found]]:
    return {side: [Found(step_s=[seconds[side]] * 3, peak_bytes=100)] for side in SIDES}


def measured(*, compute: str = "float32") -> Measured:
    rows = [
        learner.row(shape, found(sppo=1.0, padded=2.0, trl=4.0, matmul=0.5))
        for shape in learner.SHAPES
    ]
    return Measured(
        compute=compute, fast_compute="float32", threads=2, model="smollm2-135m", rows=rows
    )


def test_ratios_are_those_of_pairs() -> None:
    several = found(sppo=1.0, padded=2.0, trl=4.0, matmul=0.5)
    several["trl"].append(Found(step_s=[40.0], peak_bytes=300))
    for side in ("sppo", "padded", "matmul"):
        several[side].append(Found(step_s=[10.0], peak_bytes=100))  # a slow hour falls on all
    made: Row = learner.row(learner.SHAPES[0], several)
    assert made.vs_trl == 4.0
    assert made.peak_bytes["trl"] == 200


def test_bars_are_judged_in_the_processors_own_format() -> None:
    judged = {check.name: check for check in learner.checks(measured())}
    assert all(check.ok for check in judged.values())
    assert judged["learner_vs_trl"].value == 4.0
    assert judged["learner_of_matmul"].value == 0.5
    assert judged["memory_vs_trl_long"].value == 1.0
    assert {check.ok for check in learner.checks(measured(compute="bfloat16"))} == {None}
    other = replace(measured(), model="another")
    assert {check.ok for check in learner.checks(other)} == {None}


def test_a_table_names_sides_and_shapes() -> None:
    text = "\n".join(learner.table(measured()))
    assert "quickstart  sppo               1.000" in text
    assert all(side in text for side in SIDES)


def test_one_rank_is_measured() -> None:
    with pytest.raises(ConfigError, match=r"learner\.ranks = 2: .* has one; 1"):
        learner.resolved(["learner.ranks=2"])


def test_a_job_has_the_shape_and_the_runs_settings() -> None:
    config = learner.resolved(["optimizer.lr=1e-4"])
    shape = Shape(
        name="x", groups=3, completions=4, prompt=5, shortest=1, longest=6, micro_batch_tokens=99
    )
    job = learner.job_of(config, shape, steps=2)
    groups = job.groups()
    assert [len(g.completions) for g in groups] == [4, 4, 4]
    assert '"lr":0.0001' in job.config.replace(" ", "")
    assert job.vocabulary == 49152


def test_a_side_that_fails_is_told_with_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    job = learner.job_of(learner.resolved([]), learner.SHAPES[0], steps=1)
    broken = replace(job, config="{}x")
    with pytest.raises(SppoError, match="sppo ended with exit code 1"):
        learner._apart("sppo", broken)
