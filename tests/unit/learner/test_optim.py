"""Optimizers, their schedules, and what a checkpoint brings back of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.learner import stored
from sppo.learner.optim import Optimizer
from tests import checkpoints, makers


def config(*, name: str = "adamw", **changes: Any) -> RunConfig:
    sections = makers.sections(**{"lr": 0.1, "steps": 10} | changes)
    sections["optimizer"]["name"] = name
    return makers.run_config(**sections)


def weights() -> dict[str, nn.Parameter]:
    return {"w": nn.Parameter(torch.tensor([1.0, -2.0, 3.0])), "b": nn.Parameter(torch.ones(2))}


def give(master: dict[str, nn.Parameter], n: int) -> None:
    """Gradients that differ from step to step."""
    for i, parameter in enumerate(master.values()):
        parameter.grad = torch.sin(torch.arange(len(parameter)) + 3.0 * n + i)


def rates(**changes: Any) -> list[float]:
    optimizer = Optimizer(config(**changes), weights())
    return [round(optimizer.learning_rate(n) / 0.1, 4) for n in range(1, 11)]


def test_a_constant_rate_follows_a_linear_warm_up() -> None:
    assert rates(warmup_steps=4) == [0.25, 0.5, 0.75, *[1.0] * 7]
    assert rates() == [1.0] * 10


def test_schedules_fall_from_the_peak_to_the_last_step() -> None:
    # Given ten steps, two of them warm-up: the peak is at the second
    assert rates(schedule="linear", warmup_steps=2) == pytest.approx(
        [0.5, *[(11 - n) / 9 for n in range(2, 11)]], abs=1e-4
    )
    cosine = rates(schedule="cosine")
    assert cosine[0] == 1.0
    assert cosine[5] == pytest.approx(0.5)
    assert sorted(cosine, reverse=True) == cosine
    assert cosine[-1] > 0


def test_a_restart_begins_schedule_and_moments_anew_at_each_iteration() -> None:
    # Given iterations of three steps
    settings = {"restart": True, "iteration_steps": 3, "schedule": "linear"}
    assert rates(**settings) == pytest.approx([1, 2 / 3, 1 / 3] * 3 + [1], abs=1e-4)
    master = weights()
    optimizer = Optimizer(config(**settings), master)
    for n in (1, 2, 3):
        give(master, n)
        optimizer.step(n)
    # When the second iteration begins at the same weights as a fresh optimizer
    other = {name: nn.Parameter(p.detach().clone()) for name, p in master.items()}
    fresh = Optimizer(config(**settings), other)
    for n in (4, 5):
        for one, its in ((master, optimizer), (other, fresh)):
            give(one, n)
            its.step(n)
    # Then both go on alike
    assert all(torch.equal(p, other[name]) for name, p in master.items())


def test_rmsprop_is_its_formula() -> None:
    master = weights()
    optimizer = Optimizer(config(name="rmsprop", betas=(0.5, 0.8), max_grad_norm=1e9), master)
    start, square = master["w"].detach().double().clone(), torch.zeros(3, dtype=torch.float64)
    for n in (1, 2, 3):
        give(master, n)
        gradient = master["w"].grad
        assert gradient is not None
        gradient = gradient.double().clone()
        optimizer.step(n)
        square = 0.8 * square + 0.2 * gradient**2
        start = start - 0.1 * gradient / (square.sqrt() + 1e-8)
    assert torch.allclose(master["w"].double(), start, rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_checkpoint_brings_moments_and_schedule_back(
    name: str, restart: bool, tmp_path: Path
) -> None:
    # Given four steps, the moments after the third on disk
    settings = config(name=name, restart=restart, iteration_steps=5, schedule="cosine")
    master = weights()
    optimizer = Optimizer(settings, master)
    for n in (1, 2, 3):
        give(master, n)
        optimizer.step(n)
    folder = checkpoints.save(tmp_path, 1, model=(), optimizer=optimizer.state())
    again = {k: nn.Parameter(p.detach().clone()) for k, p in master.items()}
    give(master, 4)
    optimizer.step(4)
    # When another process takes the fourth from there
    loaded = Optimizer(settings, again)
    with stored.opened(folder, "optimizer") as there:
        loaded.load(there)
    give(again, 4)
    loaded.step(4)
    # Then its weights are the same to the bit
    assert all(torch.equal(p, again[k]) for k, p in master.items())
    assert loaded.learning_rate(5) == optimizer.learning_rate(5)


def test_the_moments_of_another_optimizer_are_refused(tmp_path: Path) -> None:
    master = weights()
    optimizer = Optimizer(config(), master)
    give(master, 1)
    optimizer.step(1)
    folder = checkpoints.save(tmp_path, 1, model=(), optimizer=optimizer.state())
    refused = pytest.raises(ConfigError, match=r"optimizer.name = 'rmsprop'.*another optimizer")
    with refused, stored.opened(folder, "optimizer") as there:
        Optimizer(config(name="rmsprop"), weights()).load(there)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_leaves_weights_and_moments(value: float) -> None:
    master = weights()
    optimizer = Optimizer(config(), master)
    give(master, 1)
    optimizer.step(1)
    before = {k: p.detach().clone() for k, p in master.items()}
    moments = {k: v.clone() for k, v in optimizer.state()}
    give(master, 2)
    gradient = master["b"].grad
    assert gradient is not None
    gradient[0] = value
    update = optimizer.step(2)
    assert update.flaw == f"the gradient norm is {value}"
    assert all(torch.equal(p, before[k]) for k, p in master.items())
    assert all(torch.equal(v, moments[k]) for k, v in optimizer.state())
    assert all(p.grad is None for p in master.values())
