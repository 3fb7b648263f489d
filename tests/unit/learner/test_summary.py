"""The figures of a step."""

from __future__ import annotations

import numpy as np

from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from sppo.metrics import METRICS
from sppo.types import Group, Version
from tests import makers
from tests.unit.learner.tiny import (
    on_policy,
    policy,
    settings,
    take,
    without_signal,
)


def test_the_entropy_of_what_was_not_measured_is_what_the_engine_said(
    path: str, groups: list[Group]
) -> None:
    # Given groups without a signal that this policy sampled, so that −log μ is an unbiased estimate
    quiet = on_policy(policy(path), [without_signal(g) for g in groups])
    record = take(path, quiet)[1]
    # Then the mean over all tokens joins the entropy of the one measured with −log μ of the others
    assert record["measured_share"] < 0.5
    said = np.concatenate([c.behavior_logprobs for g in quiet for c in g.completions])
    assert abs(record["entropy"] + said.mean()) < 1.0


def test_every_metric_is_documented_and_staleness_is_counted(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    later = Version(epoch=makers.V0.epoch, n=2)
    record = next(iter(trainer.train(groups, later)))
    assert set(record) <= set(METRICS)
    assert (record["staleness_mean"], record["staleness_max"], record["mismatch"]) == (2, 2, None)
    foreign = next(iter(trainer.train(groups, Version(epoch="another life", n=2))))
    assert (foreign["staleness_mean"], foreign["foreign_epoch_groups"]) == (None, 6)
