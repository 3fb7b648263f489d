"""Completions that take no part in a loss, for every path that computes it.

Shape suffixes: T tokens, N completions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.kernels import LossStats

SETTINGS: dict[str, Any] = {"eta": 1.7, "weight_mode": "geometric", "centered": True}
Evaluate = Callable[..., tuple[Tensor, Tensor, LossStats]]
"""Tokens, targets and groups to (loss, gradient [T], statistics)."""


def one_rejected() -> dict[str, Any]:
    """One group of four completions of one token: Δ = (0, 0, 0, −40), s = (1, 0, 1, 0), of which
    `masked` rejects the last.
    """
    return {
        "logprob_T": torch.tensor([-1.0, -1.0, -1.0, -41.0]),
        "anchor_T": torch.full((4,), -1.0),
        "behavior_T": torch.tensor([-1.0, -1.0, -1.0, -3.0]),
        "mask_T": None,
        "cu_seqlens": torch.arange(5),
        "targets_N": torch.tensor([1.0, 0.0, 1.0, 0.0]),
        "group_offsets": torch.tensor([0, 4]),
        "eta": 1.0,
        "weight_mode": "masked",
        "centered": True,
    }


def check_one_rejected(loss: Tensor, stats: LossStats) -> None:
    """Residuals −0.33, 0.67, −0.33: the mean is that of the three."""
    assert stats.weight_N.tolist() == [1, 1, 1, 0]
    assert stats.residual_N[:3].tolist() == pytest.approx([-1 / 3, 2 / 3, -1 / 3], abs=1e-6)
    assert stats.target_N[:3].tolist() == pytest.approx([1 / 3, -2 / 3, 1 / 3], abs=1e-6)
    assert float(loss) == pytest.approx((1 / 9 + 4 / 9 + 1 / 9) / 4)  # of a step of four


def check_alone(evaluate: Evaluate) -> None:
    """Groups of which one completion is empty, one masked as a whole and one group is nothing but
    such, are those groups without them: loss, gradient and statistics.
    """
    torch.manual_seed(0)
    lengths = torch.tensor([3, 0, 4, 5, 2, 2, 0])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    tokens = {name: -torch.rand(16) for name in ("logprob_T", "anchor_T", "behavior_T")}
    mask_T = torch.ones(16, dtype=torch.bool)
    mask_T[7:12], mask_T[14:] = False, False  # the whole fourth and sixth
    target_N = torch.randn(7)
    loss, grad_T, stats = evaluate(
        **tokens, mask_T=mask_T, cu_seqlens=offsets, targets_N=target_N,
        group_offsets=torch.tensor([0, 5, 7]),
    )  # fmt: skip
    kept_N, kept_T = torch.tensor([0, 2, 4]), mask_T
    alone_loss, alone_T, alone = evaluate(
        **{name: values_T[kept_T] for name, values_T in tokens.items()}, mask_T=None,
        cu_seqlens=torch.tensor([0, 3, 7, 9]), targets_N=target_N[kept_N],
        group_offsets=torch.tensor([0, 3]),
    )  # fmt: skip
    torch.testing.assert_close(loss, alone_loss)
    torch.testing.assert_close(grad_T[kept_T], alone_T)
    assert not grad_T[~kept_T].any()
    for name in LossStats.__slots__:
        torch.testing.assert_close(getattr(stats, name)[kept_N], getattr(alone, name))
    assert stats.weight_N[[1, 3, 5, 6]].tolist() == [0, 0, 0, 0]
    assert all(torch.isfinite(getattr(stats, name)).all() for name in LossStats.__slots__)
