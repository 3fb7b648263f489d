"""What the launches do on the host. The kernels themselves: tests/kernels."""

from __future__ import annotations

import torch

from sppo.kernels.loss import gpu
from sppo.kernels.loss.call import LossStats, Terms, Tokens


def test_no_groups_launch_nothing() -> None:
    none_T, offsets = torch.zeros(0), torch.zeros(1, dtype=torch.int64)
    tokens = Tokens(none_T, none_T, none_T, None, offsets)
    terms = Terms(
        target_N=none_T, group_offsets=offsets, normalizer=torch.ones(()), eta=1.0, mode="none",
        limit=1.0, centered=True, length_normalized=False, want_gradient=True,
    )  # fmt: skip
    loss, gradient_T, stats = gpu.sppo_loss(tokens, terms)
    assert (float(loss), gradient_T.shape, len(stats)) == (0, (0,), len(LossStats.__slots__))
    assert [found_N.shape for found_N in gpu.sequence_log_ratios(tokens)] == [(0,), (0,), (0,)]
