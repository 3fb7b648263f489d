"""A whole configuration."""

from __future__ import annotations

import subprocess
import sys

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


def test_every_preset_is_within_the_limits() -> None:
    for name in config.presets():
        config.load(name, environment=False)
