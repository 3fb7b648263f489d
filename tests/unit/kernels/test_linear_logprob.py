"""The chunked log-prob against its reference in float64, values and every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.kernels import linear_logprob as chunked
from sppo.kernels import linear_logprob_reference as reference
from sppo.kernels.linear_logprob import VOCAB_CHUNK


def inputs(tokens: int, hidden: int, vocabulary: int, dtype: torch.dtype, scale: float = 1.0) -> dict[str, Tensor]:
    torch.manual_seed(tokens + vocabulary)
    return {
        "hidden_TH": (torch.randn(tokens, hidden) * scale).to(dtype),
        "weight_VH": torch.randn(vocabulary, hidden).to(dtype),
        "target_T": torch.randint(0, vocabulary, (tokens,)),
    }


def evaluate(
    function: Any, data: dict[str, Tensor], upstream_T: Tensor, entropy_share: float = 0.0, **options: Any
) -> list[Tensor]:
    leaves = {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in data.items()}
    logprob_T, entropy_T, lse_T = function(**leaves, return_entropy=True, **options)
    total = (1 - entropy_share) * (logprob_T * upstream_T).sum()
    if entropy_share:
        total = total + entropy_share * (entropy_T * upstream_T.flip(0)).sum()
    total.backward()
    grads = [v.grad for v in leaves.values() if v.requires_grad]
    return [t.detach().double() for t in (logprob_T, entropy_T, lse_T, *grads)]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@pytest.mark.parametrize("vocabulary", [7, VOCAB_CHUNK, 2 * VOCAB_CHUNK + 13])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"softcap": 5.0, "temperature": 1.3},
        {"softcap": 5.0, "temperature": 1.3, "entropy_share": 0.5},
        {"entropy_share": 1.0},
    ],
)
def test_values_and_gradients(vocabulary: int, dtype: torch.dtype, bound: float, options: dict[str, float]) -> None:
    data = inputs(9, 16, vocabulary, dtype)
    data["target_T"][0] = vocabulary - 1  # the last column
    data["bias"] = torch.randn(vocabulary).to(dtype)
    upstream_T = torch.randn(9)
    exact = {k: v.double() if v.is_floating_point() else v for k, v in data.items()}
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


def test_ignored_tokens_have_no_value_and_no_gradient() -> None:
    data = inputs(6, 8, 50, torch.float32)
    data["target_T"][[1, 4]] = -100
    hidden_TH = data["hidden_TH"].requires_grad_()
    logprob_T, entropy_T, _ = chunked(**data, return_entropy=True)
    logprob_T.sum().backward()
    assert entropy_T is not None
    assert hidden_TH.grad is not None
    assert logprob_T[[1, 4]].abs().sum() == entropy_T[[1, 4]].abs().sum() == 0
    assert hidden_TH.grad[[1, 4]].abs().sum() == 0
    assert (hidden_TH.grad[[0, 2, 3, 5]].abs().sum(-1) > 0).all()


def test_no_tokens_at_all() -> None:
    data = inputs(0, 8, 50, torch.float32)
    hidden_TH = data["hidden_TH"].requires_grad_()
    logprob_T, _, _ = chunked(**data)
    logprob_T.sum().backward()
    assert logprob_T.shape == (0,)
    assert hidden_TH.grad is not None


def test_a_frozen_head_gets_no_gradient_and_hidden_gets_the_same() -> None:
    data = inputs(4, 8, 50, torch.float32)
    results = []
    for frozen in (False, True):
        hidden_TH = data["hidden_TH"].clone().requires_grad_()
        weight_VH = data["weight_VH"].clone().requires_grad_(not frozen)
        logprob_T, _, _ = chunked(hidden_TH, weight_VH, data["target_T"])
        logprob_T.sum().backward()
        results.append(hidden_TH.grad)
        assert (weight_VH.grad is None) == frozen
    assert torch.equal(*results)


def test_the_same_bits_on_every_run_and_the_global_flag_is_restored() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    data = inputs(7, 16, VOCAB_CHUNK + 3, torch.bfloat16)
    one, two = (evaluate(chunked, data, torch.ones(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_T": torch.tensor([0, 99])}, "target_T holds 99"),
        ({"target_T": torch.tensor([0])}, "target_T"),
        ({"weight_VH": torch.zeros(5, 3)}, "weight_VH"),
        ({"weight_VH": torch.zeros(5, 8, dtype=torch.bfloat16)}, "one dtype"),
        ({"bias": torch.zeros(4)}, "bias"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], words: str) -> None:
    data: dict[str, Any] = inputs(2, 8, 5, torch.float32)
    with pytest.raises(ValueError, match=words):
        chunked(**(data | changes))
