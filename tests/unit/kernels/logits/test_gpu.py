"""What the launches do on the host. The kernels themselves: tests/kernels."""

from __future__ import annotations

import torch

from sppo.kernels.logits import gpu
from sppo.kernels.logits.call import Call


def test_rows_are_copied_only_where_they_are_not_contiguous() -> None:
    rows = torch.randn(3, 9)[:, :5]
    assert gpu._row_major(rows) is rows
    assert gpu._row_major(rows.T).is_contiguous()


def test_no_tokens_launch_nothing() -> None:
    call = Call(
        logits_TV=torch.zeros(0, 8), target_T=torch.zeros(0, dtype=torch.int64),
        temperature_T=torch.ones(0), softcap=None, ignore_index=-100, return_entropy=False,
        inplace_backward=False, backend="triton",
    )  # fmt: skip
    assert [found_T.shape for found_T in gpu.forward(call)] == [(0,), (0,), (0,)]
