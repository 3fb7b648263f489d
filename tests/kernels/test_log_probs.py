"""The Triton kernels, in Triton's interpreter or on a GPU, against float64 references: values and
every gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.kernels import logits_logprob
from sppo.kernels.linear import gpu
from sppo.kernels.linear.call import Call, Upstream
from sppo.kernels.logits.reference import logits_logprob_reference
from sppo.kernels.tiles import SPLIT, Tile
from tests.heads import chunked as linear_logprob
from tests.heads import reference as linear_logprob_reference

BOUND = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 5e-3}


def head(
    tokens: int, width: int, vocabulary: int, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> Any:
    torch.manual_seed(tokens + width + vocabulary)
    target_T = torch.randint(0, vocabulary, (tokens,))
    target_T[0] = vocabulary - 1  # the last column
    return {
        "hidden_TH": (torch.randn(tokens, width) * scale).to(dtype),
        "weight_VH": (torch.randn(vocabulary, width) / width**0.5).to(dtype),
        "target_T": target_T,
    }


def call_of(
    data: dict[str, Tensor], bias: Tensor, temperature_T: Tensor, *, softcap: float | None,
    entropy: bool,
) -> Call:  # fmt: skip
    return Call(
        **data, bias=bias, temperature_T=temperature_T, softcap=softcap, ignore_index=-100,
        return_entropy=entropy, fast=False, backend="triton",
    )  # fmt: skip


def evaluate(
    function: Callable[..., Any], data: dict[str, Tensor], entropy_share: float, **options: Any
) -> list[Tensor]:
    """Values, then gradients under upstream gradients that differ from token to token."""
    leaves = {
        k: v.detach().requires_grad_() if v.is_floating_point() else v for k, v in data.items()
    }
    if "temperature" in leaves:
        leaves["temperature"] = leaves["temperature"].detach()
    logprob_T, entropy_T, lse_T = function(**leaves, return_entropy=entropy_share > 0, **options)
    upstream_T = torch.linspace(-1, 2, len(logprob_T)).double()
    total = (1 - entropy_share) * (logprob_T * upstream_T).sum()
    if entropy_share:
        total = total + entropy_share * (entropy_T * upstream_T.flip(0)).sum()
    total.backward()
    grads = [v.grad for v in leaves.values() if v.requires_grad]
    return [t.detach().double() for t in (logprob_T, entropy_T, lse_T, *grads) if t is not None]


def compare(
    function: Any,
    reference: Any,
    data: dict[str, Tensor],
    bound: float,
    entropy_share: float = 0.0,
    **options: Any,
) -> None:
    exact = {k: v.double() if v.is_floating_point() else v for k, v in data.items()}
    got = evaluate(function, data, entropy_share, backend="triton", **options)
    expected = evaluate(reference, exact, entropy_share, **options)
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert float((a - b).norm() / b.norm().clamp_min(1e-30)) < bound, index


def compare_linear(data: Any, bound: float = 1e-5, **options: Any) -> None:
    compare(linear_logprob, linear_logprob_reference, data, bound, **options)


def compare_logits(data: Any, bound: float = 1e-5, **options: Any) -> None:
    compare(logits_logprob, logits_logprob_reference, data, bound, **options)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(
    ("tokens", "width", "vocabulary", "options"),
    [
        (40, 96, 256, {}),
        (33, 72, 301, {"entropy_share": 0.5}),
        (33, 72, 301, {"softcap": 5.0, "entropy_share": 0.5, "bias": True, "temperatures": True}),
        (1, 100, 257, {"bias": True, "temperature": 0.7}),
        (40, 64, 320, {"softcap": 3.0, "temperature": 1.3, "entropy_share": 1.0}),
    ],
)
def test_linear_values_and_gradients(
    tokens: int, width: int, vocabulary: int, options: dict[str, Any], dtype: torch.dtype
) -> None:
    data, options = head(tokens, width, vocabulary, dtype), dict(options)
    data["target_T"][2::7] = -100
    if options.pop("bias", False):
        data["bias"] = torch.randn(vocabulary).to(dtype)
    if options.pop("temperatures", False):
        data["temperature"] = torch.empty(tokens).uniform_(0.6, 1.5)
    compare_linear(data, BOUND[dtype], **options)


def test_several_splits_and_a_ragged_last_one() -> None:
    compare_linear(head(33, 32, SPLIT + 70), entropy_share=0.5)


@pytest.mark.parametrize(
    "tile", [Tile(16, 64, 16, 4, 1, parts=1, tma=False), Tile(64, 128, 32, 4, 1, parts=2, tma=True)]
)
def test_every_way_to_fetch_and_to_split_a_tile_agrees(tile: Tile) -> None:
    data = head(40, 48, 200)
    bias, temperature_T, grad_T = torch.randn(200), torch.full((40,), 0.9), torch.randn(40)
    call = call_of(data, bias, temperature_T, softcap=4.0, entropy=True)
    plain = gpu.forward(call)
    same = gpu.forward(call, tile=tile)
    for a, b in zip(plain, same, strict=True):
        torch.testing.assert_close(a, b)
    upstream = Upstream(plain[0], plain[2], plain[1], grad_T, grad_T.flip(0), True, True, True)
    for a, b in zip(
        gpu.backward(call, upstream), gpu.backward(call, upstream, tile=tile), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_the_backward_takes_the_vocabulary_in_bounded_chunks() -> None:
    data = head(20, 32, 700)
    call = call_of(data, torch.randn(700), torch.ones(20), softcap=None, entropy=False)
    logprob_T, entropy_T, lse_T = gpu.forward(call)
    upstream = Upstream(logprob_T, lse_T, entropy_T, torch.randn(20), None, True, True, True)
    whole = gpu.backward(call, upstream)
    chunks = gpu.backward(call, upstream, chunk_bytes=20 * 4 * 300)  # 256, 256 and 188 columns
    for a, b in zip(whole, chunks, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bias", [-1e4, 1e4])
def test_logits_that_are_all_very_negative_or_share_an_offset(bias: float) -> None:
    data = head(8, 32, 130)
    data["bias"] = torch.full((130,), bias)
    compare_linear(data, 5e-3, entropy_share=0.5)


def test_a_bias_of_minus_infinity_takes_tokens_out_of_the_vocabulary() -> None:
    data = head(8, 32, 130)
    data["bias"] = torch.zeros(130).index_fill(0, torch.arange(64, 128), -torch.inf)
    data["target_T"][:] = torch.tensor([0, 1, 2, 3, 60, 61, 128, 129])
    compare_linear(data, entropy_share=0.5)
    data["target_T"][0] = 70
    assert linear_logprob(**data, backend="triton")[0][0] == -torch.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.9, 0.99, 0.999])
def test_gradients_hold_where_the_target_is_nearly_certain(p: float, dtype: torch.dtype) -> None:
    tokens, width, vocabulary = 16, 64, 128
    data = head(tokens, width, vocabulary, dtype, scale=0.0)
    data["hidden_TH"] = torch.eye(tokens, width).to(dtype)
    data["weight_VH"] = torch.zeros(vocabulary, width).to(dtype)
    lead = torch.tensor(p / (1 - p) * (vocabulary - 1)).log()
    data["weight_VH"][data["target_T"], torch.arange(tokens)] = lead.to(dtype)
    compare_linear(data, 1e-2 if dtype is torch.bfloat16 else 1e-3)


@pytest.mark.parametrize("shift", [300.0, -1000.0])
def test_gradients_hold_there_under_a_large_offset_of_all_logits(shift: float) -> None:
    data = head(16, 64, 128, scale=0.0)
    data["bias"] = torch.full((128,), shift)
    data["bias"][3] += torch.tensor(0.999 / 0.001 * 127).log()
    data["target_T"][:] = 3
    compare_linear(data, 1e-2)
    logits_TV = data["bias"].expand(16, 128).clone()
    compare_logits({"logits_TV": logits_TV, "target_T": data["target_T"]}, 1e-2)


def test_what_is_ignored_may_hold_nan() -> None:
    data = head(70, 32, 100)
    data["target_T"][[3, *range(32, 64)]] = -100  # one of a tile, and a whole tile
    data["hidden_TH"][[3, 40]] = torch.nan
    hidden_TH, weight_VH = data["hidden_TH"].requires_grad_(), data["weight_VH"].requires_grad_()
    logprob_T, entropy_T, _ = linear_logprob(**data, return_entropy=True, backend="triton")
    (logprob_T + entropy_T).sum().backward()
    assert not any(
        t is None or t.isnan().any() for t in (logprob_T, entropy_T, hidden_TH.grad, weight_VH.grad)
    )
    assert not hidden_TH.grad[[3, 40]].any()


def test_a_temperature_that_is_not_above_0_turns_its_token_to_nan() -> None:
    temperature = torch.tensor([1.0, -1.0, 0.0, 0.5])
    assert linear_logprob(**head(4, 32, 100), temperature=temperature, backend="triton")[
        0
    ].isnan().tolist() == [
        0,
        1,
        1,
        0,
    ]
    found = logits_logprob(
        torch.randn(4, 9), torch.arange(4), temperature=temperature, backend="triton"
    )
    assert found[0].isnan().tolist() == [0, 1, 1, 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU to wait for")
def test_nothing_waits_for_the_gpu() -> None:
    data = head(40, 64, 320, torch.bfloat16)
    for mode in ("default", "error"):  # once to compile
        torch.cuda.set_sync_debug_mode(mode)
        try:
            hidden_TH, weight_VH = (
                data["hidden_TH"].requires_grad_(),
                data["weight_VH"].requires_grad_(),
            )
            logprob_T, entropy_T, _ = linear_logprob(**data, return_entropy=True)
            (logprob_T + entropy_T).sum().backward()
            logits_logprob(hidden_TH @ weight_VH.T, data["target_T"])[0].sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_ignored_tokens_have_no_value_and_no_gradient() -> None:
    data = head(70, 32, 100)
    data["target_T"][:] = -100
    hidden_TH, weight_VH = data["hidden_TH"].requires_grad_(), data["weight_VH"].requires_grad_()
    found = linear_logprob(**data, return_entropy=True, backend="triton")
    (found[0].sum() + found[1].sum()).backward()
    assert not any(t.any() for t in (*found, hidden_TH.grad, weight_VH.grad))


def test_no_tokens_at_all() -> None:
    data = head(1, 32, 100)
    data = {
        "hidden_TH": torch.zeros(0, 32),
        "weight_VH": data["weight_VH"],
        "target_T": data["target_T"][:0],
    }
    hidden_TH, weight_VH = data["hidden_TH"].requires_grad_(), data["weight_VH"].requires_grad_()
    logprob_T, _, _ = linear_logprob(**data, backend="triton")
    logprob_T.sum().backward()
    assert logprob_T.shape == (0,)
    assert hidden_TH.grad.shape == (0, 32)
    assert not weight_VH.grad.any()


@pytest.mark.parametrize("frozen", ["hidden_TH", "weight_VH"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(frozen: str) -> None:
    data, grads = head(8, 32, 100), []
    for names in (
        ["hidden_TH", "weight_VH"],
        [n for n in ("hidden_TH", "weight_VH") if n != frozen],
    ):
        leaves = {
            k: v.clone().requires_grad_(k in names) for k, v in data.items() if k != "target_T"
        }
        linear_logprob(**leaves, target_T=data["target_T"], backend="triton")[0].sum().backward()
        grads.append(
            leaves[names[-1] if len(names) == 1 else next(n for n in names if n != frozen)].grad
        )
        assert len(names) == 2 or leaves[frozen].grad is None
    assert torch.equal(*grads)


def test_inputs_need_not_be_contiguous() -> None:
    data = head(12, 34, 90)
    data["hidden_TH"] = data["hidden_TH"].T.contiguous().T
    data["weight_VH"] = torch.randn(90, 40)[:, 3:37]
    data["target_T"] = torch.randint(0, 90, (12, 2))[:, 1]
    data["temperature"] = torch.rand(12, 2)[:, 1] + 0.5
    data["bias"] = torch.randn(90, 2)[:, 1]
    compare_linear(data, entropy_share=0.5)


def test_the_same_bits_on_every_run_and_in_a_second_backward() -> None:
    runs = []
    for _ in range(2):
        data = head(12, 32, 90, torch.bfloat16)
        hidden_TH, weight_VH = (
            data["hidden_TH"].requires_grad_(),
            data["weight_VH"].requires_grad_(),
        )
        logprob_T, _, _ = linear_logprob(**data, backend="triton")
        for _ in range(2):
            runs.append(
                torch.autograd.grad(logprob_T.sum(), (hidden_TH, weight_VH), retain_graph=True)
            )
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_a_token_has_the_same_bits_in_every_batch() -> None:
    data = head(50, 32, 300)
    whole, _, _ = linear_logprob(**data, backend="triton")
    part, _, _ = linear_logprob(
        data["hidden_TH"][17:30].contiguous(),
        data["weight_VH"],
        data["target_T"][17:30],
        backend="triton",
    )
    assert torch.equal(whole[17:30], part)


@pytest.mark.parametrize("wrong", [100, 2**40, -1])
def test_a_target_outside_the_vocabulary_turns_its_results_to_nan(wrong: int) -> None:
    data = head(8, 32, 100)
    data["target_T"][3] = wrong
    hidden_TH = data["hidden_TH"].requires_grad_()
    logprob_T, _, lse_T = linear_logprob(**data, backend="triton")
    logprob_T.sum().backward()
    assert logprob_T.isnan().nonzero().tolist() == lse_T.isnan().nonzero().tolist() == [[3]]
    assert hidden_TH.grad.isnan().all(-1).nonzero().tolist() == [[3]]
    logits_TV = torch.randn(8, 100, requires_grad=True)
    logprob_T, _, _ = logits_logprob(logits_TV, data["target_T"], backend="triton")
    logprob_T.sum().backward()
    assert (
        logprob_T.isnan().nonzero().tolist()
        == logits_TV.grad.isnan().all(-1).nonzero().tolist()
        == [[3]]
    )


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_nan_is_not_lost() -> None:
    data = head(8, 32, 100)
    data["hidden_TH"][2, 5] = torch.nan
    for bias in (None, torch.zeros(100)):
        assert linear_logprob(**data, bias=bias, backend="triton")[
            0
        ].isnan().nonzero().tolist() == [[2]]


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"entropy_share": 0.5, "temperatures": True},
        {"softcap": 5.0, "temperature": 1.3, "entropy_share": 0.5},
        {"entropy_share": 1.0, "inplace_backward": True},
    ],
)
def test_logits_values_and_gradients(options: dict[str, Any], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    options = dict(options)
    inplace = options.pop("inplace_backward", False)
    data = {
        "logits_TV": (torch.randn(9, 5003) * 4).to(dtype),
        "target_T": torch.randint(0, 5003, (9,)),
    }
    data["target_T"][[0, 3]] = torch.tensor([5002, -100])
    if options.pop("temperatures", False):
        data["temperature"] = torch.empty(9).uniform_(0.6, 1.5)

    def operation(logits_TV: Tensor, **arguments: Any) -> Any:
        return logits_logprob(logits_TV * 1, **arguments, inplace_backward=inplace)

    compare(operation, logits_logprob_reference, data, BOUND[dtype], **options)


def test_logits_of_minus_infinity_and_no_tokens_and_other_strides() -> None:
    logits_TV = torch.randn(6, 50)
    logits_TV[:, 10:40] = -torch.inf
    compare_logits(
        {"logits_TV": logits_TV, "target_T": torch.tensor([1, 2, 45, 3, 4, 49])}, entropy_share=0.5
    )
    compare_logits(
        {"logits_TV": torch.randn(50, 6).T, "target_T": torch.arange(6)}, entropy_share=0.5
    )
    assert logits_logprob(logits_TV[:0], torch.zeros(0, dtype=torch.int64), backend="triton")[
        0
    ].shape == (0,)
