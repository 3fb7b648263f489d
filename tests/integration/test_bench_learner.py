"""TRL's side of `bench learner` on a small model; the others stand in tests/unit/bench."""

from __future__ import annotations

from sppo.bench import learner


def test_trl_takes_its_optimizer_steps_on_our_groups(small_model: str) -> None:
    config = learner.resolved([f"model.name={small_model}", "learner.threads=2"])
    shape = learner.Shape(
        name="tiny", groups=2, completions=2, prompt=8, shortest=2, longest=5,
        micro_batch_tokens=64,
    )  # fmt: skip
    found = learner._apart("trl", learner.job_of(config, shape, steps=1))
    assert len(found.step_s) == 1
    assert found.peak_bytes > 0
