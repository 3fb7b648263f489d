"""The chunked log-prob against its reference in float64, values and every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sppo.kernels.linear.cpu import MAX_CHUNK
from tests.heads import chunked, evaluate, inputs, reference, relative, wide


@pytest.mark.parametrize("vocabulary", [7, MAX_CHUNK, 2 * MAX_CHUNK + 13])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"softcap": 5.0, "temperature": 1.3},
        {"softcap": 5.0, "temperature": 1.3, "entropy_share": 0.5},
        {"entropy_share": 1.0},
        {"entropy_share": 0.5, "temperature": torch.linspace(0.6, 1.5, 9)},
    ],
)
def test_values_and_gradients(
    vocabulary: int, dtype: torch.dtype, bound: float, options: dict[str, Any]
) -> None:
    data = inputs(9, 16, vocabulary, dtype)
    data["target_T"][0] = vocabulary - 1  # the last column
    data["bias"] = torch.randn(vocabulary).to(dtype)
    upstream_T = torch.randn(9)
    exact = wide(data)
    for got, expected in zip(
        evaluate(chunked, data, upstream_T, **options),
        evaluate(reference, exact, upstream_T.double(), **options),
        strict=True,
    ):
        assert relative(got, expected) < bound


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_a_large_offset_of_all_logits_changes_nothing(offset: float) -> None:
    data = inputs(5, 8, 300, torch.float32)
    plain, _, _ = chunked(**data)
    shifted, _, _ = chunked(**data, bias=torch.full((300,), offset))
    assert torch.allclose(plain, shifted, atol=5e-3)


def test_what_is_ignored_is_not_even_multiplied() -> None:
    data = inputs(6, 8, 50, torch.float32)
    data["target_T"][[1, 4]] = -100
    data["hidden_TH"][[1, 4]] = torch.nan
    hidden_TH, weight_VH = data["hidden_TH"].requires_grad_(), data["weight_VH"].requires_grad_()
    logprob_T, _, _ = chunked(**data)
    logprob_T.sum().backward()
    assert not any(
        t is None or t.isnan().any() for t in (logprob_T, hidden_TH.grad, weight_VH.grad)
    )


@pytest.mark.parametrize("p", [0.9, 0.99, 0.999])
def test_gradients_hold_where_the_target_is_nearly_certain(p: float) -> None:
    data = inputs(16, 64, 128, torch.bfloat16)
    data["hidden_TH"] = torch.eye(16, 64).bfloat16()
    data["weight_VH"] = torch.zeros(128, 64).bfloat16()
    data["weight_VH"][data["target_T"], torch.arange(16)] = (
        torch.tensor(p / (1 - p) * 127).log().bfloat16()
    )
    exact = wide(data)
    got, expected = (
        evaluate(chunked, data, torch.ones(16)),
        evaluate(reference, exact, torch.ones(16).double()),
    )
    for a, b in zip(got[3:], expected[3:], strict=True):
        assert relative(a, b) < 1e-2


def test_a_bias_of_minus_infinity_takes_tokens_out_of_the_vocabulary() -> None:
    data = inputs(4, 8, 2 * MAX_CHUNK, torch.float32)
    data["bias"] = torch.zeros(2 * MAX_CHUNK)
    data["bias"][:MAX_CHUNK] = -torch.inf
    data["target_T"] = torch.tensor([0, 1, 2, 3]) + MAX_CHUNK
    exact = wide(data)
    upstream_T = torch.ones(4)
    for a, b in zip(
        evaluate(chunked, data, upstream_T, 0.5),
        evaluate(reference, exact, upstream_T.double(), 0.5),
        strict=True,
    ):
        assert relative(a, b) < 1e-5


def test_fast_logits_are_rounded_and_gradients_are_near() -> None:
    data = inputs(64, 32, 3000, torch.bfloat16, scale=0.3)
    exact = wide(data)
    upstream_T = torch.randn(64)
    wanted = evaluate(reference, exact, upstream_T.double())
    accurate, fast = (evaluate(chunked, data, upstream_T, fast=fast) for fast in (False, True))
    assert float((accurate[0] - wanted[0]).abs().mean()) < 1e-5
    assert 1e-5 < float((fast[0] - wanted[0]).abs().mean()) < 2e-2
    assert all(relative(f, w) < 2e-2 for f, w in zip(fast[3:], wanted[3:], strict=True))


def test_the_same_bits_on_every_run_and_the_global_flag_is_restored() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    data = inputs(7, 16, MAX_CHUNK + 3, torch.bfloat16)
    one, two = (evaluate(chunked, data, torch.ones(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize("shift", [300.0, -1000.0])
def test_gradients_of_a_nearly_certain_target_hold_under_a_large_offset(shift: float) -> None:
    data = inputs(16, 64, 128, torch.float32, scale=0.0)
    data["bias"] = torch.full((128,), shift)
    data["bias"][3] += torch.tensor(0.999 / 0.001 * 127).log()
    data["target_T"][:] = 3
    exact = wide(data)
    got, expected = (
        evaluate(chunked, data, torch.ones(16)),
        evaluate(reference, exact, torch.ones(16).double()),
    )
    for a, b in zip(got[3:], expected[3:], strict=True):
        assert relative(a, b) < 1e-2
