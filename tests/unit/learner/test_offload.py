"""Moments in host memory: the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sppo.learner import stored
from sppo.learner.optim import Optimizer
from tests import checkpoints, makers


def optimizer(master: dict[str, nn.Parameter], **changes: Any) -> Optimizer:
    return Optimizer(makers.run_config(optimizer={"lr": 0.1} | changes), master)


def weights() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {f"w{n}": nn.Parameter(torch.randn(n, 5, generator=generator)) for n in (3, 7, 40)}


def give(master: dict[str, nn.Parameter], n: int) -> None:
    for i, p in enumerate(master.values()):
        p.grad = torch.sin(torch.arange(p.numel()) + 3.0 * n + i).view_as(p)


@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
def test_steps_and_what_is_remembered_are_bit_equal_across_a_resume(
    name: str, tmp_path: Path
) -> None:
    here, there = weights(), weights()
    plain = optimizer(here, name=name, weight_decay=0.1)
    away = optimizer(there, name=name, weight_decay=0.1, offload=True)
    for n in range(1, 7):
        if n == 4:  # When a life ends, and the next one goes on from what it wrote
            folder = checkpoints.save(tmp_path, n, model=(), optimizer=away.state())
            away = optimizer(there, name=name, weight_decay=0.1, offload=True)
            with stored.opened(folder, "optimizer") as kept:
                away.load(kept)
        for master, its in ((here, plain), (there, away)):
            give(master, n)
            its.step(n)
    assert all(torch.equal(there[key], p) for key, p in here.items())
    remembered = dict(away.state())
    assert remembered
    assert all(torch.equal(remembered[key], v) for key, v in plain.state())


def test_moments_keep_their_place_in_host_memory_from_step_to_step() -> None:
    master = weights()
    away = optimizer(master, offload=True)
    places = []
    for n in (1, 2, 3):
        give(master, n)
        away.step(n)
        places.append({key: value.data_ptr() for key, value in away.state()})
    assert places[0] == places[1] == places[2]
