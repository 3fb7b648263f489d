"""A whole configuration."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sppo import config


def test_parsing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from sppo import config; config.load('quickstart')\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'redis'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_largest_seed_is_one_that_numpy_and_torch_take() -> None:
    import numpy as np
    import torch

    seed = config.load("quickstart", [f"seed={2**32 - 1}"]).seed
    np.random.RandomState(seed)
    torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("phase_s", "hang_s"), [(10, 90), (60, 300), (300, 1500)])
def test_a_role_has_hung_when_it_does_nothing_for_several_phases_of_a_sync(
    phase_s: float, hang_s: float
) -> None:
    loaded = config.load("quickstart", [f"weights.phase_timeout_s={phase_s}"])
    assert loaded.hang_timeout_s == hang_s


def test_log_probs_are_taken_at_the_samplers_temperature_unless_another_is_given() -> None:
    assert config.load("quickstart").policy_temperature == 0.7


def test_every_preset_is_within_the_limits() -> None:
    for name in config.presets():
        config.load(name, environment=False)
