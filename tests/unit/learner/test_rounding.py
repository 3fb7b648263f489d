"""What an export in a narrow format leaves of the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sppo.learner.model import Logprobs, Policy
from sppo.learner.rounding import Rounding
from tests import makers

LAST = 2**-8
"""Half of the last bit of a bfloat16 near 1."""


def left(folder: Path, change: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> float | None:
    save_file({"w": torch.ones(len(change), dtype=torch.bfloat16)}, folder / "model.safetensors")
    rounding = Rounding(str(folder), dtype)
    rounded = rounding.of("w", 1 + change)
    assert rounded.dtype is dtype
    assert torch.equal(rounded, (1 + change).to(dtype))
    return rounding.left


def test_changes_below_half_of_the_last_bit_are_lost_and_larger_ones_kept(tmp_path: Path) -> None:
    assert left(tmp_path, torch.full((5,), 0.4 * LAST)) == 0
    assert left(tmp_path, torch.full((5,), 4 * LAST)) == 1
    # of squares one in five is lost
    mixed = torch.tensor([2 * LAST, 2 * LAST, 0.9 * LAST, 0.4 * LAST, -0.2 * LAST])
    lost = (0.9**2 + 0.4**2 + 0.2**2) / (4 + 4 + 0.9**2 + 0.4**2 + 0.2**2)
    assert left(tmp_path, mixed) == pytest.approx(1 - lost, rel=1e-5)


def test_nothing_is_said_where_nothing_is_lost_or_cannot_be_compared(tmp_path: Path) -> None:
    change = torch.full((5,), 0.4 * LAST)
    assert left(tmp_path, change, torch.float32) is None
    assert left(tmp_path, torch.zeros(5)) is None
    rounding = Rounding(str(tmp_path), torch.bfloat16)
    rounding.of("another", torch.ones(5))
    assert rounding.left is None
    rounding = Rounding(str(tmp_path), torch.bfloat16)
    rounding.of("w", torch.ones(6))
    assert rounding.left is None


def test_an_export_tells_the_share(tmp_path: Path) -> None:
    path = makers.tiny_model(tmp_path / "model", vocabulary=61)
    policy = Policy(path, device="cpu", logprobs=Logprobs(temperature=1.0), compute=torch.float32)
    with torch.no_grad():
        for weight in policy.master.values():
            weight.copy_(weight.bfloat16())
    base = tmp_path / "base"
    assert policy.export(base, torch.bfloat16) is not None
    again = Policy(str(base), device="cpu", logprobs=Logprobs(temperature=1.0),
                   compute=torch.float32)  # fmt: skip
    with torch.no_grad():
        for weight in again.master.values():
            weight.mul_(1 + 0.2 * LAST)
    assert again.export(tmp_path / "small", torch.bfloat16) == 0
    assert again.export(tmp_path / "whole", torch.float32) is None
    with torch.no_grad():
        for weight in again.master.values():
            weight.mul_(1.5)
    found = again.export(tmp_path / "large", torch.bfloat16)
    assert found == pytest.approx(1, abs=0.01)
