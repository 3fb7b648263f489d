"""Every term of a loss, whatever the objective."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sppo.learner import objectives
from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from sppo.learner.watched import Watched
from sppo.types import Group
from tests import makers
from tests.unit.learner import tiny


def watch(path: str, groups: list[Group], **settings: Any) -> tuple[Watched, dict[str, Any]]:
    """One step at weights that are not the snapshots'."""
    model, given = tiny.policy(path), tiny.settings(**settings)
    for snapshot in ("anchor", "reference"):
        model.keep(snapshot, device="cpu")  # type: ignore[arg-type]
    tiny.moved(model)
    watched = Watched(objectives.make(given.objective), given.objective)
    watched.open = True
    trainer = Trainer(given, model, Optimizer(given, model.master), objective=watched)
    (record,) = trainer.train(groups, makers.V0)
    return watched, record


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"anchor": "behavior"},
        {"micro_batch_tokens": 16},
        {"target": "softmean", "weight": "sequence", "kl_coef": 0.1},
        {"reject": "geometric", "reject_low": 0.9, "reject_high": 1.1},
    ],
)
def test_squares_add_up_to_the_loss(
    path: str, groups: list[Group], settings: dict[str, Any]
) -> None:
    watched, record = watch(path, groups, **settings)
    rows = [row for row in watched.completions() if row["trained"]]
    assert sum(row["loss"] for row in rows) == pytest.approx(record["loss"], rel=1e-4)
    assert len({(row["uid"], row["at"]) for row in rows}) == len(rows)


def test_a_completion_without_weight_has_no_residual_and_no_loss(
    path: str, groups: list[Group]
) -> None:
    watched, _ = watch(path, groups, reject="geometric", reject_low=0.9, reject_high=1.1)
    rows = list(watched.completions())
    out = [row for row in rows if row["weight"] == 0]
    assert out
    assert {(row["residual"], row["loss"], row["gradient"]) for row in out} == {(None, 0.0, 0.0)}


def test_the_gradient_is_that_of_the_regression(path: str, groups: list[Group]) -> None:
    compared = tiny.compared(groups)
    watched, _ = watch(path, compared, target="half", anchor="behavior", weight="none")
    rows = list(watched.completions())
    for row in rows:  # d(residual² / N) / dlogprob, the same for each token
        tokens, each = row["tokens"]["gradient"], 2 * row["residual"] / len(rows)
        assert tokens == pytest.approx([each] * len(tokens), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", ["dpo", "grpo", "inpo"])
def test_other_objectives_have_their_own_terms(path: str, groups: list[Group], name: str) -> None:
    watched, _ = watch(path, groups, name=name)
    rows = list(watched.completions())
    assert all(row["tokens"]["gradient"] for row in rows)
    assert all(row.get("loss") is None for row in rows)
    others = watched.others()
    assert "loss" in others
    assert ("margin_P" in others) == (name == "dpo")
    assert ("residual_N" in others) == (name == "inpo")


def test_the_policy_that_is_its_own_anchor_has_not_moved(path: str, groups: list[Group]) -> None:
    watched, _ = watch(path, groups)
    assert {row["delta"] for row in watched.completions() if row["trained"]} == {0.0}


def test_closed_it_sees_nothing_and_changes_nothing(path: str, groups: list[Group]) -> None:
    given = tiny.settings()
    weights = []
    for open_ in (False, True):
        model = tiny.policy(path)
        watched = Watched(objectives.make(given.objective), given.objective)
        watched.open = open_
        trainer = Trainer(given, model, Optimizer(given, model.master), objective=watched)
        list(trainer.train(groups, makers.V0))
        assert bool(watched.seen) == open_
        weights.append({name: w.detach().clone() for name, w in model.master.items()})
    assert all(torch.equal(weights[0][name], w) for name, w in weights[1].items())
