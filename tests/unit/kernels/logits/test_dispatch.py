"""Log-probs from logits against the reference in float64, values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.kernels import logits_logprob
from sppo.kernels.logits.reference import logits_logprob_reference


def inputs(
    tokens: int = 7, vocabulary: int = 301, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    torch.manual_seed(tokens + vocabulary)
    target_T = torch.randint(0, vocabulary, (tokens,))
    target_T[0], target_T[2] = vocabulary - 1, -100
    return {"logits_TV": (torch.randn(tokens, vocabulary) * 3).to(dtype), "target_T": target_T}


def evaluate(function: Any, data: dict[str, Tensor], **options: Any) -> list[Tensor]:
    leaf_TV = data["logits_TV"].clone().requires_grad_()
    logprob_T, entropy_T, lse_T = function(
        leaf_TV * 1, data["target_T"], return_entropy=True, **options
    )
    upstream_T = torch.linspace(-1, 2, len(logprob_T)).double()
    ((logprob_T * upstream_T).sum() + (entropy_T * upstream_T.flip(0)).sum()).backward()
    assert leaf_TV.grad is not None
    return [t.detach().double() for t in (logprob_T, entropy_T, lse_T, leaf_TV.grad)]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.7, "softcap": 5.0}, {"temperature": torch.linspace(0.6, 1.5, 7)}],
)
def test_values_and_gradients(
    options: dict[str, Any], dtype: torch.dtype, bound: float, inplace: bool
) -> None:
    data = inputs(dtype=dtype)
    exact = data | {"logits_TV": data["logits_TV"].double()}
    got = evaluate(logits_logprob, data, inplace_backward=inplace, **options)
    for a, b in zip(got, evaluate(logits_logprob_reference, exact, **options), strict=True):
        assert float((a - b).norm() / b.norm()) < bound


def test_in_place_the_gradient_takes_the_place_of_the_logits_and_a_second_backward_is_refused() -> (
    None
):
    data = inputs()
    leaf_TV = data["logits_TV"].clone().requires_grad_()
    logits_TV = leaf_TV * 1
    logprob_T, _, _ = logits_logprob(logits_TV, data["target_T"], inplace_backward=True)
    (gradient_TV,) = torch.autograd.grad(logprob_T.sum(), logits_TV, retain_graph=True)
    assert gradient_TV.data_ptr() == logits_TV.data_ptr()
    with pytest.raises(RuntimeError, match="inplace operation"):
        logprob_T.sum().backward()


def test_logits_of_minus_infinity_are_outside_the_vocabulary() -> None:
    data = inputs(4, 60)
    data["logits_TV"][:, 10:40] = -torch.inf
    data["target_T"] = torch.tensor([1, 45, -100, 59])
    exact = data | {"logits_TV": data["logits_TV"].double()}
    for a, b in zip(
        evaluate(logits_logprob, data), evaluate(logits_logprob_reference, exact), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("tokens", [0, 1])
def test_few_tokens(tokens: int) -> None:
    leaf_TV = torch.randn(tokens, 5, requires_grad=True)
    logprob_T, _, _ = logits_logprob(leaf_TV, torch.zeros(tokens, dtype=torch.int64))
    logprob_T.sum().backward()
    assert leaf_TV.grad is not None
    assert leaf_TV.grad.shape == (tokens, 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"logits_TV": torch.zeros(7)}, "logits_TV is float32"),
        ({"logits_TV": torch.full((7, 301), torch.nan)}, r"logits_TV \[7, 301\] holds NaN"),
        ({"logits_TV": torch.zeros(301, 7).T, "inplace_backward": True}, "contiguous rows"),
        ({"target_T": torch.zeros(6, dtype=torch.int64)}, "target_T is int64"),
        ({"target_T": torch.full((7,), 301)}, r"target_T \[7\] holds 301"),
        ({"temperature": torch.zeros(7)}, "temperature"),
        ({"softcap": 0.0}, "softcap"),
        (
            {"logits_TV": torch.zeros(7, 301, requires_grad=True), "inplace_backward": True},
            "logits_TV is a leaf",
        ),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], words: str) -> None:
    data: dict[str, Any] = inputs()
    with pytest.raises(ValueError, match=words):
        logits_logprob(**(data | changes))


def test_gradcheck_and_opcheck() -> None:
    data = inputs(5, 13, torch.float64)
    logits_TV, target_T = data["logits_TV"].requires_grad_(), data["target_T"]

    def operation(logits_TV: Tensor) -> Any:
        return logits_logprob(
            logits_TV, target_T, softcap=3.0, temperature=0.8, return_entropy=True
        )[:2]

    assert torch.autograd.gradcheck(operation, (logits_TV,))
    temperature_T = torch.full((5,), 0.8, dtype=torch.float64)
    arguments = logits_TV, target_T, temperature_T, 3.0, -100, True, False, "torch"
    torch.library.opcheck(torch.ops.sppo.logits_logprob, arguments)


@pytest.mark.parametrize("inplace", [False, True])
def test_it_compiles_into_one_graph_of_any_length(inplace: bool) -> None:
    def total(logits_TV: Tensor, target_T: Tensor) -> Tensor:
        return logits_logprob(logits_TV * 2, target_T, inplace_backward=inplace)[0].sum()

    compiled = torch.compile(total, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (7, 12):
        data = inputs(tokens)
        leaf_TV = data["logits_TV"].requires_grad_()
        (got,) = torch.autograd.grad(compiled(leaf_TV, data["target_T"]), leaf_TV)
        (expected,) = torch.autograd.grad(total(leaf_TV, data["target_T"]), leaf_TV)
        assert torch.equal(got, expected)
