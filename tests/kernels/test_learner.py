"""A learner's step through the Triton kernels: the figures and the weights of one in plain
torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sppo.kernels import Backend
from sppo.learner.model import Logprobs, Policy
from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from sppo.types import Version
from tests import makers

DEVICE = torch.get_default_device().type


@pytest.fixture(autouse=True)
def places_are_named() -> Iterator[None]:
    """The learner names the device of what it makes: none is given by default."""
    torch.set_default_device("cpu")
    yield
    torch.set_default_device(DEVICE)


@pytest.mark.parametrize("target", ["centered", "softmean"])
def test_a_step_is_that_of_plain_torch(target: str, tmp_path: Path) -> None:
    path = makers.tiny_model(tmp_path / "model")
    groups = makers.random_groups(np.random.default_rng(0), 4, vocabulary=61)

    def step(kernels: Backend) -> tuple[dict[str, Any], list[torch.Tensor]]:
        options = Logprobs(temperature=0.7, kernels=kernels)
        policy = Policy(path, device=DEVICE, logprobs=options, compute=torch.float32)
        config = makers.training(
            groups_per_step=4, lr=1e-3, entropy_coef=0.01, target=target, kernels=kernels
        )
        trainer = Trainer(config, policy, Optimizer(config, policy.master))
        figures = next(iter(trainer.train(groups, Version(epoch="e1", n=2))))
        return figures, [weight.detach() for _, weight in policy.masters()]

    (plain, before), (fused, after) = step("torch"), step("triton")
    assert fused.keys() == plain.keys()
    for name, value in plain.items():
        if name.endswith("_s"):  # seconds
            continue
        wanted = pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value
        assert fused[name] == wanted, name
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
