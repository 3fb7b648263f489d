"""A rank is put together from a run's settings."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from sppo import config
from sppo.learner import rank
from sppo.learner.groups import InHand
from sppo.learner.image import Image
from sppo.learner.orders import Keep, Save, Weights
from sppo.learner.ranks import Solo
from sppo.learner.writer import reserve
from tests import makers
from tests.checkpoints import load


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


def test_what_a_checkpoint_holds_is_of_before_the_step_that_comes_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let, write = threading.Event(), Image.write

    def later(*given: Any) -> dict[str, Any]:
        let.wait(30)
        return write(*given)

    monkeypatch.setattr(Image, "write", later)
    settings = makers.run_config(
        model={"name": makers.tiny_model(tmp_path / "model")}, compute="float32"
    )
    own, _ = rank.make(settings, Solo(), "cpu", InHand(Solo(), ()))

    def step(n: int) -> None:
        for parameter in own.policy.master.values():
            parameter.grad = torch.ones_like(parameter)
        own.optimizer.step(n)

    step(1)
    before = {
        kind: {name: value.detach().clone() for name, value in tensors}
        for kind, tensors in (
            ("model", own.policy.masters()), ("optimizer", own.optimizer.state()),
        )
    }  # fmt: skip
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    reserve(folder, 1)
    own.do(Save(folder=str(folder), snapshots=[]))
    step(2)
    let.set()
    assert own.writer._thread is not None
    own.writer._thread.join(30)
    assert any((v != before["model"][k]).any() for k, v in own.policy.masters())
    for kind, there in before.items():
        found = load(folder, kind)
        assert found.keys() == there.keys()
        assert all(torch.equal(found[name], value) for name, value in there.items())


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
