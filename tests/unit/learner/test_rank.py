"""A rank is put together from a run's settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sppo import config
from sppo.learner import rank
from sppo.learner.groups import InHand
from sppo.learner.orders import Keep, Weights
from sppo.learner.ranks import Solo
from tests import makers


def test_one_rank_has_the_base_models_weights(tmp_path: Path) -> None:
    path = makers.tiny_model(tmp_path / "model")
    settings = makers.run_config(
        model={"name": path}, learner={"threads": 1, "device": "cpu"}
    ).model_copy(update={"compute": "bfloat16"})
    assert isinstance(settings, config.RunConfig)
    team = Solo()
    beats: list[int] = []
    own, trainer = rank.make(settings, team, "cpu", InHand(team, ()), lambda: beats.append(1))
    assert own.trainer is trainer
    assert own.policy.device == "cpu"
    own.do(Keep(snapshot="probe", device="cpu"))
    masters = dict(own.policy.masters())
    assert all(w.dtype == torch.float32 for w in masters.values())
    kept = dict(own.stream(Weights(snapshot="probe")))
    assert all(torch.equal(w, masters[k].bfloat16()) for k, w in kept.items())


def test_moments_that_are_on_a_cpu_anyway_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, team = makers.tiny_model(tmp_path / "model"), Solo()
    settings = makers.run_config(
        model={"name": path}, optimizer={"offload": True}, compute="float32"
    )
    rank.make(settings, team, "cpu", InHand(team, ()))
    assert "optimizer.offload = true changes nothing" in caplog.text


def test_layers_are_computed_again_on_a_gpu_or_where_it_is_asked_for() -> None:
    def run(asked: str) -> config.RunConfig:
        return makers.run_config(learner={"recompute": asked})

    assert [rank.recomputed(run("auto"), device) for device in ("cpu", "cuda:0")] == [False, True]
    assert rank.recomputed(run("on"), "cpu")
    assert not rank.recomputed(run("off"), "cuda:0")
