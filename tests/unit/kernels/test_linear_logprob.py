"""The chunked log-prob against its reference in float64, values and every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.kernels import linear_logprob as chunked
from sppo.kernels import linear_logprob_reference as reference
from sppo.kernels.torch_linear import MAX_CHUNK


def inputs(
    tokens: int, hidden: int, vocabulary: int, dtype: torch.dtype, scale: float = 1.0
) -> dict[str, Tensor]:
    torch.manual_seed(tokens + vocabulary)
    return {
        "hidden_TH": (torch.randn(tokens, hidden) * scale).to(dtype),
        "weight_VH": torch.randn(vocabulary, hidden).to(dtype),
        "target_T": torch.randint(0, vocabulary, (tokens,)),
    }


def evaluate(
    function: Any,
    data: dict[str, Tensor],
    upstream_T: Tensor,
    entropy_share: float = 0.0,
    **options: Any,
) -> list[Tensor]:
    leaves = {
        k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in data.items()
    }
    logprob_T, entropy_T, lse_T = function(**leaves, return_entropy=True, **options)
    total = (1 - entropy_share) * (logprob_T * upstream_T).sum()
    if entropy_share:
        total = total + entropy_share * (entropy_T * upstream_T.flip(0)).sum()
    total.backward()
    grads = [v.grad for v in leaves.values() if v.requires_grad]
    return [t.detach().double() for t in (logprob_T, entropy_T, lse_T, *grads)]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


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
    logprob_T, entropy_T, lse_T = chunked(**data, return_entropy=True)
    logprob_T.sum().backward()
    assert entropy_T is not None
    assert hidden_TH.grad is not None
    assert (
        logprob_T[[1, 4]].abs().sum()
        == entropy_T[[1, 4]].abs().sum()
        == lse_T[[1, 4]].abs().sum()
        == 0
    )
    assert hidden_TH.grad[[1, 4]].abs().sum() == 0
    assert (hidden_TH.grad[[0, 2, 3, 5]].abs().sum(-1) > 0).all()


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


@pytest.mark.parametrize("kept", [0, 1])
def test_few_tokens_or_none_are_kept(kept: int) -> None:
    data = inputs(3, 8, 50, torch.float32)
    data["target_T"][kept:] = -100
    weight_VH = data["weight_VH"].requires_grad_()
    logprob_T, _, _ = chunked(**data)
    logprob_T.sum().backward()
    assert weight_VH.grad is not None
    assert int((logprob_T != 0).sum()) == kept
    assert bool(weight_VH.grad.any()) == (kept > 0)


@pytest.mark.parametrize("p", [0.9, 0.99, 0.999])
def test_gradients_hold_where_the_target_is_nearly_certain(p: float) -> None:
    data = inputs(16, 64, 128, torch.bfloat16)
    data["hidden_TH"] = torch.eye(16, 64).bfloat16()
    data["weight_VH"] = torch.zeros(128, 64).bfloat16()
    data["weight_VH"][data["target_T"], torch.arange(16)] = (
        torch.tensor(p / (1 - p) * 127).log().bfloat16()
    )
    exact = {k: v.double() if v.is_floating_point() else v for k, v in data.items()}
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
    exact = {k: v.double() if v.is_floating_point() else v for k, v in data.items()}
    upstream_T = torch.ones(4)
    for a, b in zip(
        evaluate(chunked, data, upstream_T, 0.5),
        evaluate(reference, exact, upstream_T.double(), 0.5),
        strict=True,
    ):
        assert relative(a, b) < 1e-5


def test_fast_logits_are_rounded_and_gradients_are_near() -> None:
    data = inputs(64, 32, 3000, torch.bfloat16, scale=0.3)
    exact = {k: v.double() if v.is_floating_point() else v for k, v in data.items()}
    upstream_T = torch.randn(64)
    wanted = evaluate(reference, exact, upstream_T.double())
    accurate, fast = (evaluate(chunked, data, upstream_T, fast=fast) for fast in (False, True))
    assert float((accurate[0] - wanted[0]).abs().mean()) < 1e-5
    assert 1e-5 < float((fast[0] - wanted[0]).abs().mean()) < 2e-2
    assert all(relative(f, w) < 2e-2 for f, w in zip(fast[3:], wanted[3:], strict=True))


def test_strided_inputs_and_a_second_backward() -> None:
    data = inputs(12, 32, 40, torch.float32)
    strided = {"hidden_TH": data["hidden_TH"][::2, ::2], "weight_VH": data["weight_VH"][:, ::2]}
    strided["target_T"] = data["target_T"][::2]
    dense = {k: v.contiguous() for k, v in strided.items()}
    leaf = strided["hidden_TH"].requires_grad_()
    logprob_T, _, _ = chunked(**strided)
    first, second = (
        torch.autograd.grad(logprob_T.sum(), leaf, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)
    torch.testing.assert_close(logprob_T, chunked(**dense)[0])


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
    data = inputs(7, 16, MAX_CHUNK + 3, torch.bfloat16)
    one, two = (evaluate(chunked, data, torch.ones(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_T": torch.tensor([0, 99])}, r"target_T \[2\] holds 99: expected 0 to 4"),
        ({"target_T": torch.tensor([0, -1])}, r"target_T \[2\] holds -1"),
        ({"target_T": torch.tensor([0])}, "target_T"),
        ({"target_T": torch.tensor([0, 1], dtype=torch.int32)}, "target_T is int32"),
        ({"target_T": torch.zeros(2, dtype=torch.int64, device="meta")}, "target_T .* on meta"),
        ({"hidden_TH": torch.full((2, 8), torch.nan)}, r"hidden_TH \[2, 8\] holds NaN"),
        ({"weight_VH": torch.full((5, 8), torch.inf)}, r"weight_VH \[5, 8\] holds NaN or infinity"),
        (
            {"bias": torch.full((5,), -torch.inf)},
            r"bias \[5\]: the logits of a token are not finite",
        ),
        ({"backend": "cuda"}, "backend 'cuda': there are auto, triton, torch"),
        ({"target_T": torch.tensor([0, 99]), "backend": "reference"}, r"target_T \[2\] holds 99"),
        ({"hidden_TH": torch.zeros(2, 8, dtype=torch.int64)}, "hidden_TH is int64"),
        ({"weight_VH": torch.zeros(5, 3)}, "weight_VH"),
        ({"weight_VH": torch.zeros(5, 8, dtype=torch.bfloat16)}, "one dtype"),
        ({"bias": torch.zeros(4)}, "bias"),
        ({"bias": torch.full((5,), torch.nan)}, r"bias \[5\] holds NaN"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": torch.ones(3)}, r"temperature is float32 \[3\]"),
        ({"temperature": torch.tensor([1.0, 0.0])}, r"temperature \[2\] holds 0"),
        ({"softcap": -1.0}, "softcap"),
        ({"softcap": float("inf")}, "softcap is inf"),
        ({"weight_VH": torch.tensor(1.0)}, r"weight_VH is float32 \[\]"),
        (
            {"hidden_TH": torch.full((2, 8), torch.nan), "backend": "reference"},
            r"hidden_TH \[2, 8\] holds NaN",
        ),
        ({"backend": "triton"}, "backend 'triton'"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], words: str) -> None:
    data: dict[str, Any] = inputs(2, 8, 5, torch.float32)
    with pytest.raises(ValueError, match=words):
        chunked(**(data | changes))


def double(tokens: int = 9) -> tuple[Tensor, ...]:
    """Float64 leaves, targets and temperatures."""
    torch.manual_seed(0)
    hidden_TH, weight_VH, bias = (
        torch.randn(*s, dtype=torch.float64) for s in ((tokens, 4), (11, 4), (11,))
    )
    target_T = torch.randint(0, 11, (tokens,))
    target_T[2] = -100
    temperature_T = torch.empty(tokens, dtype=torch.float64).uniform_(0.5, 2)
    return *(t.requires_grad_() for t in (hidden_TH, weight_VH, bias)), target_T, temperature_T


def test_gradcheck() -> None:
    *leaves, target_T, temperature_T = double(4)

    def operation(hidden_TH: Tensor, weight_VH: Tensor, bias: Tensor) -> Any:
        return chunked(
            hidden_TH,
            weight_VH,
            target_T,
            bias=bias,
            temperature=temperature_T,
            softcap=3.0,
            return_entropy=True,
        )[:2]

    assert torch.autograd.gradcheck(operation, leaves)


@pytest.mark.parametrize("options", [(3.0, -100, True), (None, -100, False)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_opcheck(options: tuple[Any, ...], with_bias: bool) -> None:
    hidden_TH, weight_VH, bias, target_T, temperature_T = double()
    torch.library.opcheck(
        torch.ops.sppo.linear_logprob,
        (
            hidden_TH,
            weight_VH,
            target_T,
            bias if with_bias else None,
            temperature_T,
            *options,
            False,
            None,
            "torch",
        ),
    )


def test_opcheck_of_the_backward_with_transposed_inputs() -> None:
    hidden_TH, weight_VH, bias, target_T, temperature_T = (t.detach() for t in double())
    hidden_TH, weight_VH = hidden_TH.T.contiguous().T, weight_VH.T.contiguous().T
    given = hidden_TH, weight_VH, target_T, bias, temperature_T, 3.0, -100
    logprob_T, entropy_T, lse_T = torch.ops.sppo.linear_logprob(*given, True, False, None, "torch")
    grad_T = torch.ones(()).double().expand(9)
    rest = logprob_T, lse_T, entropy_T, grad_T, grad_T, True, True, True, False, None, "torch"
    torch.library.opcheck(torch.ops.sppo.linear_logprob_backward, (*given, *rest))


@pytest.mark.parametrize("shift", [300.0, -1000.0])
def test_gradients_of_a_nearly_certain_target_hold_under_a_large_offset(shift: float) -> None:
    data = inputs(16, 64, 128, torch.float32, scale=0.0)
    data["bias"] = torch.full((128,), shift)
    data["bias"][3] += torch.tensor(0.999 / 0.001 * 127).log()
    data["target_T"][:] = 3
    exact = {k: v.double() if v.is_floating_point() else v for k, v in data.items()}
    got, expected = (
        evaluate(chunked, data, torch.ones(16)),
        evaluate(reference, exact, torch.ones(16).double()),
    )
    for a, b in zip(got[3:], expected[3:], strict=True):
        assert relative(a, b) < 1e-2


def test_it_compiles_into_one_graph_of_any_length() -> None:
    def total(hidden_TH: Tensor, weight_VH: Tensor, bias: Tensor, target_T: Tensor) -> Tensor:
        logprob_T, entropy_T, _ = chunked(
            hidden_TH * 2, weight_VH, target_T, bias=bias, return_entropy=True
        )
        assert entropy_T is not None
        return (logprob_T + entropy_T).sum()

    compiled = torch.compile(total, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (9, 13):
        *leaves, target_T, _ = double(tokens)
        got = torch.autograd.grad(compiled(*leaves, target_T), leaves)
        for a, b in zip(got, torch.autograd.grad(total(*leaves, target_T), leaves), strict=True):
            assert torch.equal(a, b)
