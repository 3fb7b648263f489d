"""The operation that torch sees: what it refuses, the rules it obeys, which tokens it skips."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.kernels.linear.call import Call
from tests.heads import chunked, inputs


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
        ({"factor": 0.0}, "factor is 0.0: expected a finite number above 0"),
        ({"factor": 2.0, "softcap": 5.0}, "factor is 2.0 and softcap 5.0: expected one of both"),
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


def call(softcap: float | None, entropy: bool, *, with_bias: bool = True) -> Call:
    hidden_TH, weight_VH, bias, target_T, temperature_T = double()
    return Call(
        hidden_TH=hidden_TH,
        weight_VH=weight_VH,
        bias=bias if with_bias else None,
        temperature_T=temperature_T,
        target_T=target_T,
        softcap=softcap,
        ignore_index=-100,
        return_entropy=entropy,
        fast=False,
        backend="torch",
    )


@pytest.mark.parametrize("options", [(3.0, True), (None, False)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_opcheck(options: tuple[Any, ...], with_bias: bool) -> None:
    torch.library.opcheck(torch.ops.sppo.linear_logprob, call(*options, with_bias=with_bias))


def test_opcheck_of_the_backward_with_transposed_inputs() -> None:
    given = call(3.0, True)
    given = Call(*(t.detach() if isinstance(t, Tensor) else t for t in given))
    given = given._replace(
        hidden_TH=given.hidden_TH.T.contiguous().T, weight_VH=given.weight_VH.T.contiguous().T
    )
    logprob_T, entropy_T, lse_T = torch.ops.sppo.linear_logprob(*given)
    grad_T = torch.ones(()).double().expand(9)
    rest = logprob_T, lse_T, entropy_T, grad_T, grad_T, True, True, True
    torch.library.opcheck(torch.ops.sppo.linear_logprob_backward, (*given, *rest))


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
