"""The SPPO loss in plain torch: what it refuses, and what tokens that do not count may hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sppo.kernels import sequence_log_ratios, sppo_loss

TOKENS = 7


def data() -> dict[str, Any]:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        name: -torch.rand(TOKENS) for name in ("logprob_T", "anchor_T", "behavior_T")
    }
    return given | {
        "mask_T": torch.ones(TOKENS),
        "cu_seqlens": torch.tensor([0, 3, 7]),
        "targets_N": torch.rand(2),
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight_mode": "nope"}, "'nope': there are none, geometric"),
        ({"weight_mode": "masked", "cap": 1.0}, "cap = 1.0: must be greater than 1"),
        ({"eta": float("nan")}, "eta = nan: expected a finite number"),
        ({"normalizer": 0}, "normalizer = 0: expected the completions of a step"),
        ({"backend": "cuda"}, "backend 'cuda': there are auto, triton, torch"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sppo_loss(**(data() | {"eta": 1.0} | changes))


def test_tokens_that_do_not_count_may_hold_anything() -> None:
    given = data()
    given["mask_T"][[1, 5]] = 0
    clean = sppo_loss(**given, eta=1.0, weight_mode="geometric")[0]
    for name in ("logprob_T", "anchor_T", "behavior_T"):
        given[name][[1, 5]] = torch.nan
    logprob_T = given["logprob_T"].requires_grad_()
    loss, stats = sppo_loss(**given, eta=1.0, weight_mode="geometric")
    loss.backward()
    assert torch.equal(loss, clean)
    assert stats.length_N.tolist() == [2, 3]
    assert logprob_T.grad is not None
    assert logprob_T.grad[[1, 5]].tolist() == [0, 0]


def test_many_tokens_of_low_precision_are_counted_in_float32() -> None:
    tokens_T = [-torch.rand(600).bfloat16() for _ in range(3)]
    offsets = torch.tensor([0, 600])
    delta_N, log_rho_N, length_N = sequence_log_ratios(*tokens_T, None, offsets)
    exact = sequence_log_ratios(*(t.double() for t in tokens_T), None, offsets)
    assert length_N.tolist() == [600]
    torch.testing.assert_close(delta_N.double(), exact[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(log_rho_N.double(), exact[1], rtol=1e-5, atol=1e-4)


def test_nothing_but_the_log_prob_gets_a_gradient() -> None:
    given = data()
    leaves = {
        name: given[name].requires_grad_()
        for name in ("logprob_T", "anchor_T", "behavior_T", "targets_N")
    }
    loss, _ = sppo_loss(**given, eta=1.0, weight_mode="sequence", centered=True)
    delta_N, log_rho_N, length_N = sequence_log_ratios(
        **{k: v for k, v in given.items() if k != "targets_N"}
    )
    assert not log_rho_N.requires_grad
    assert not length_N.requires_grad
    (loss + delta_N.sum()).backward()
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == ["logprob_T"]
