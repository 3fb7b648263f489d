"""What the launches do on the host. The kernels themselves: tests/kernels."""

from __future__ import annotations

import torch

from sppo.kernels.linear import gpu
from sppo.kernels.linear.call import Call
from sppo.kernels.tiles import Tile


def test_rows_are_copied_only_where_they_do_not_start_at_16_bytes() -> None:
    whole = torch.randn(3, 8)
    assert gpu._aligned(whole) is whole
    for awkward in (torch.randn(3, 5), torch.randn(3, 9)[:, 1:], torch.randn(8, 3).T):
        found = gpu._aligned(awkward)
        assert torch.equal(found, awkward)
        assert found.stride(1) == 1
        assert found.stride(0) * 4 % 16 == 0


def test_sums_in_float32_leave_the_flags_as_they_were() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_bf16_reduced_precision_reduction
    with gpu._sums_in_float32():
        assert not matmul.allow_bf16_reduced_precision_reduction
        assert not matmul.allow_fp16_reduced_precision_reduction
    assert matmul.allow_bf16_reduced_precision_reduction == before


def test_tiles_of_descriptors_and_of_addresses() -> None:
    hidden_TH, weight_VH = torch.zeros(4, 8), torch.zeros(6, 8)
    plain = Tile(16, 32, 8, num_warps=4, num_stages=1, tma=False)
    assert gpu._operands(hidden_TH, weight_VH, plain) == (hidden_TH, weight_VH)
    left, right = gpu._operands(hidden_TH, weight_VH, Tile(16, 32, 8, num_warps=4, num_stages=1))
    assert (left.block_shape, right.block_shape) == ([16, 8], [32, 8])


def test_no_tokens_launch_nothing() -> None:
    call = Call(
        hidden_TH=torch.zeros(0, 8), weight_VH=torch.zeros(6, 8), bias=None,
        temperature_T=torch.ones(0), target_T=torch.zeros(0, dtype=torch.int64), softcap=None,
        ignore_index=-100, return_entropy=True, fast=False, backend="triton",
    )  # fmt: skip
    assert [found_T.shape for found_T in gpu.forward(call)] == [(0,), (0,), (0,)]
