"""The Triton loss, in Triton's interpreter or on a GPU, against the plain reference in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.kernels import WEIGHTS, LossStats, sequence_log_ratios, sppo_loss
from sppo.kernels.loss.call import Terms
from sppo.kernels.loss.gpu import BLOCK
from tests import completions as cases

LENGTHS = [5, 0, BLOCK, 2 * BLOCK + 3, 17, 1]
GROUPS = [0, 2, 2, 5, 6]  # one group without completions
EPSILON = 1e-5
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def tokens(seed: int = 0) -> dict[str, Any]:
    """Log-probs of a learner that has moved, whose weights are partly clipped; every fourth token
    is masked NaN.
    """
    torch.manual_seed(seed)
    anchor_T = -torch.rand(sum(LENGTHS)) * 3
    data = {
        "logprob_T": anchor_T + 0.05 * torch.randn_like(anchor_T),
        "anchor_T": anchor_T,
        "behavior_T": anchor_T + 0.3 * torch.randn_like(anchor_T),
    }
    mask_T = torch.rand_like(anchor_T) > 0.25
    for values_T in data.values():
        values_T[~mask_T] = torch.nan
    offsets = torch.tensor([0, *itertools.accumulate(LENGTHS)])
    return data | {"mask_T": mask_T, "cu_seqlens": offsets}


def wide(data: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in data.items()
    }


def evaluate(
    data: dict[str, Any], backend: str, **options: Any
) -> tuple[Tensor, Tensor, LossStats]:
    logprob_T = data["logprob_T"].clone().requires_grad_()
    loss, stats = sppo_loss(**(data | {"logprob_T": logprob_T}), backend=backend, **options)
    (3.0 * loss).backward()
    assert logprob_T.grad is not None
    return loss.detach(), logprob_T.grad, stats


def agree(got: tuple[Tensor, Tensor, LossStats], wanted: tuple[Tensor, Tensor, LossStats]) -> None:
    assert torch.isfinite(got[1]).all()
    torch.testing.assert_close(got[0].double(), wanted[0], rtol=EPSILON, atol=0)
    assert float((got[1] - wanted[1]).norm() / wanted[1].norm().clamp_min(1e-30)) < EPSILON
    for name in LossStats.__slots__:
        one, two = getattr(got[2], name), getattr(wanted[2], name)
        torch.testing.assert_close(
            one.double(), two.double(), **CLOSE, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("mode", WEIGHTS)
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("length_normalized", [False, True])
def test_loss_gradient_and_statistics_are_the_references(
    mode: str, centered: bool, length_normalized: bool
) -> None:
    data = tokens()
    options: dict[str, Any] = {
        "eta": 1.7,
        "weight_mode": mode,
        "centered": centered,
        "length_normalized": length_normalized,
        "group_offsets": torch.tensor(GROUPS),
        "normalizer": 11,
    }
    target_N = torch.randn(len(LENGTHS))
    agree(
        evaluate(data | {"targets_N": target_N}, "triton", **options),
        evaluate(wide(data) | {"targets_N": target_N.double()}, "torch", **options),
    )


@pytest.mark.parametrize("cap", [1.0001, float("inf")])
@pytest.mark.parametrize("mode", ["geometric", "sequence", "masked"])
def test_every_weight_clipped_and_none(mode: str, cap: float) -> None:
    data = tokens(1) | {"targets_N": torch.zeros(len(LENGTHS))}
    options = {"eta": 1.0, "weight_mode": mode, "cap": cap}
    agree(evaluate(data, "triton", **options), evaluate(wide(data), "torch", **options))


def test_without_mask_and_groups_with_offsets_of_32_bits() -> None:
    torch.manual_seed(2)
    cu_seqlens = torch.tensor([0, 3, 4, 12], dtype=torch.int32)
    data = {name: -torch.rand(12) for name in ("logprob_T", "anchor_T", "behavior_T")}
    data |= {"mask_T": None, "cu_seqlens": cu_seqlens, "targets_N": torch.rand(3)}
    options = {"eta": 1e3, "weight_mode": "sequence"}
    agree(evaluate(data, "triton", **options), evaluate(wide(data), "torch", **options))
    assert evaluate(data, "triton", eta=1.0, centered=True)[0] == 0  # each its own group


def test_strided_and_low_precision_inputs() -> None:
    torch.manual_seed(3)
    low = {
        name: -torch.rand(24).bfloat16()[::2] for name in ("logprob_T", "anchor_T", "behavior_T")
    }
    data = low | {
        "mask_T": torch.ones(24)[::2],
        "cu_seqlens": torch.tensor([0, 5, 12]),
        "targets_N": torch.rand(2),
    }
    loss, grad_T, _ = evaluate(data, "triton", eta=1.0)
    wanted, wanted_T, _ = evaluate(wide(data), "torch", eta=1.0)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=0)
    assert grad_T.dtype == torch.bfloat16
    assert float((grad_T - wanted_T).norm() / wanted_T.norm()) < 5e-3


@pytest.mark.parametrize("completions", [0, 2])
def test_no_tokens(completions: int) -> None:
    none_T = torch.zeros(0)
    data = {"logprob_T": none_T, "anchor_T": none_T, "behavior_T": none_T, "mask_T": None}
    data |= {
        "cu_seqlens": torch.zeros(completions + 1, dtype=torch.int64),
        "targets_N": torch.ones(completions),
    }
    loss, grad_T, _ = evaluate(data, "triton", eta=3.0)
    assert float(loss) == 0
    assert grad_T.shape == (0,)


def test_who_is_rejected_or_masked_as_a_whole_takes_no_part() -> None:
    rejected = sppo_loss(**cases.one_rejected(), backend="triton")
    cases.check_one_rejected(*rejected)
    cases.check_alone(lambda **given: evaluate(given, "triton", **cases.SETTINGS))


def test_the_same_bits_on_every_run_and_no_gradient_where_none_is_wanted() -> None:
    data = tokens(4) | {"targets_N": torch.rand(len(LENGTHS))}
    one, two = (evaluate(data, "triton", eta=1.0, weight_mode="geometric") for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    loss, _ = sppo_loss(**data, eta=1.0, weight_mode="geometric", backend="triton")
    assert not loss.requires_grad
    assert torch.equal(loss, one[0])


def test_log_ratios_and_the_gradient_of_delta() -> None:
    data = tokens(5)
    upstream_N = torch.randn(len(LENGTHS))
    found = []
    for given, backend in ((data, "triton"), (wide(data), "torch")):
        logprob_T = given["logprob_T"].clone().requires_grad_()
        delta_N, log_rho_N, length_N = sequence_log_ratios(
            **(given | {"logprob_T": logprob_T}), backend=backend
        )
        assert not log_rho_N.requires_grad
        delta_N.backward(upstream_N.to(delta_N.dtype))
        found.append([t.detach().double() for t in (delta_N, log_rho_N, length_N, logprob_T.grad)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE)


def test_the_operations_obey_the_rules_of_custom_operations() -> None:
    lengths = [3, 0, 4]
    offsets = torch.tensor([0, *itertools.accumulate(lengths)])
    tokens_T = [-torch.rand(7) for _ in range(3)]
    tokens_T[0].requires_grad_()
    mask_T = torch.ones(7, dtype=torch.uint8)
    torch.library.opcheck(torch.ops.sppo.sequence_log_ratios, (*tokens_T, mask_T, offsets))
    terms = Terms(
        target_N=torch.rand(3), group_offsets=torch.tensor([0, 1, 3]),
        normalizer=torch.tensor(3.0), eta=1.5, mode="geometric", limit=0.18, centered=True,
        length_normalized=False, want_gradient=True,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.sppo.sppo_loss, (*tokens_T, None, offsets, *terms))


def test_one_graph_for_every_length() -> None:
    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def loss(logprob_T: Tensor, fixed_T: Tensor, cu_seqlens: Tensor, target_N: Tensor) -> Tensor:
        options: dict[str, Any] = {"eta": 1.0, "weight_mode": "geometric", "backend": "triton"}
        return 2 * sppo_loss(logprob_T, fixed_T, fixed_T, None, cu_seqlens, target_N, **options)[0]

    for lengths in ([3, 5], [2, 9, 4], [1, 1, 30]):
        offsets = torch.tensor([0, *itertools.accumulate(lengths)])
        logprob_T = -torch.rand(sum(lengths), requires_grad=True)
        logprob_T.retain_grad()
        fixed_T, target_N = -torch.rand(sum(lengths)), torch.rand(len(lengths))
        loss(logprob_T, fixed_T, offsets, target_N).backward()
        data = {
            "logprob_T": logprob_T.detach(),
            "anchor_T": fixed_T,
            "behavior_T": fixed_T,
            "mask_T": None,
        }
        wanted = evaluate(data | {"cu_seqlens": offsets, "targets_N": target_N}, "torch", eta=1.0)
        assert logprob_T.grad is not None
        torch.testing.assert_close(logprob_T.grad, wanted[1] * 2 / 3)
