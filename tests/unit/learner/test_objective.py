"""The objective against closed forms, independent restatements and finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.learner import objective
from sppo.learner.objective import effective_sample_size, group_mean, segment_sum, softmean_targets, sppo_loss

LENGTHS = [3, 1, 4, 2, 5]
GROUPS = torch.tensor([0, 0, 1, 1, 1])  # unequal sizes


def data(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    torch.manual_seed(seed)
    tokens = sum(LENGTHS)
    return {
        "logprob_T": -torch.rand(tokens, dtype=dtype) * 3,
        "anchor_T": -torch.rand(tokens, dtype=dtype) * 3,
        "behavior_T": -torch.rand(tokens, dtype=dtype) * 3,
        "cu_seqlens": torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)]),
        "scores_N": torch.rand(len(LENGTHS), dtype=dtype),
        "group_ids_N": GROUPS,
    }


def loss(values: dict[str, Any], **changes: Any) -> objective.LossTerms:
    options = {"eta": 1.5, "target": "centered", "weight": "none", "cap": 1.2, "normalizer": len(LENGTHS)}
    return sppo_loss(**values, **(options | changes))


def by_hand(values: dict[str, Any], target: str, weighted: bool, eta: float, cap: float) -> float:
    """The formulas of docs/objective.md, completion by completion in plain Python."""
    spans = list(zip(values["cu_seqlens"][:-1].tolist(), values["cu_seqlens"][1:].tolist(), strict=True))

    def total(name: str, i: int) -> float:
        start, stop = spans[i]
        return sum(values[name][start:stop].tolist())

    n = range(len(spans))
    delta = [total("logprob_T", i) - total("anchor_T", i) for i in n]
    rho = [total("anchor_T", i) - total("behavior_T", i) for i in n]
    weight = [min(max(math.exp(rho[i] / LENGTHS[i]), 1 / cap), cap) if weighted else 1.0 for i in n]
    score = values["scores_N"].tolist()
    result = 0.0
    for i in n:
        mates = [j for j in n if GROUPS[j] == GROUPS[i]]
        if target == "centered":
            own = [delta[j] - eta * score[j] for j in mates]
            residual = delta[i] - eta * score[i] - sum(own) / len(own)
        else:
            share = [weight[j] / sum(weight[k] for k in mates) for j in mates]
            log_z = math.log(sum(s * math.exp(eta * score[j]) for s, j in zip(share, mates, strict=True)))
            residual = delta[i] - (eta * score[i] - log_z)
        result += weight[i] * residual**2 / len(spans)
    return result


@pytest.mark.parametrize("target", ["centered", "softmean"])
@pytest.mark.parametrize("weight", ["none", "geometric"])
@pytest.mark.parametrize("eta", [0.3, 1.0, 20.0])
def test_the_loss_is_the_formula(target: str, weight: str, eta: float) -> None:
    for seed in range(5):
        values = data(seed)
        got = float(loss(values, target=target, weight=weight, eta=eta).loss)
        assert got == pytest.approx(by_hand(values, target, weight == "geometric", eta, 1.2), rel=1e-12)


@pytest.mark.parametrize("target", ["centered", "softmean"])
@pytest.mark.parametrize("weight", ["none", "geometric"])
def test_the_gradient_agrees_with_finite_differences(target: str, weight: str) -> None:
    values = data()
    logprob_T = values["logprob_T"].clone().requires_grad_()
    options = {"target": target, "weight": weight}
    loss(values | {"logprob_T": logprob_T}, **options).loss.backward()
    assert logprob_T.grad is not None
    fixed = loss(values, **options)  # weights and group means are held at this point
    step = 1e-6

    def held(moved_T: Tensor) -> float:
        change_N = segment_sum(moved_T - values["logprob_T"], values["cu_seqlens"])
        return float((fixed.weight_N * (fixed.residual_N + change_N) ** 2).sum() / len(LENGTHS))

    for t in range(len(logprob_T)):
        bump_T = torch.zeros_like(logprob_T)
        bump_T[t] = step
        numeric = (held(values["logprob_T"] + bump_T) - held(values["logprob_T"] - bump_T)) / (2 * step)
        assert float(logprob_T.grad[t]) == pytest.approx(numeric, rel=1e-6, abs=1e-9)


def test_on_its_own_anchor_the_gradient_is_a_policy_gradient_with_a_baseline() -> None:
    values = data()
    values["logprob_T"] = values["anchor_T"].clone().requires_grad_()
    terms = loss(values, eta=2.0)
    terms.loss.backward()
    advantage_N = values["scores_N"] - group_mean(values["scores_N"], GROUPS)
    expected_T = torch.repeat_interleave(-2 * 2.0 * advantage_N / len(LENGTHS), torch.tensor(LENGTHS))
    assert torch.allclose(values["logprob_T"].grad, expected_T)
    assert torch.allclose(terms.target_N, advantage_N)


def test_softmean_does_not_overflow_or_vanish_at_the_papers_eta() -> None:
    scores_N = torch.tensor([0.0, 0.5, 1e-3, 2e-3, 1.0])
    target_N = softmean_targets(scores_N, GROUPS, torch.ones(5), eta=1e3)
    assert torch.isfinite(target_N).all()
    assert float(target_N[1]) == pytest.approx(math.log(2) / 1e3, rel=1e-3)  # the only one that counts in its group


def test_a_scores_offset_per_group_changes_nothing() -> None:
    values = data()
    shifted = values | {"scores_N": values["scores_N"] + torch.tensor([5.0, 5.0, -2.0, -2.0, -2.0])}
    for target in ("centered", "softmean"):
        assert float(loss(values, target=target).loss) == pytest.approx(float(loss(shifted, target=target).loss))


def test_geometric_weights_are_the_clipped_mean_ratio_per_token() -> None:
    weight_N, clipped_N = objective.geometric_weights(
        torch.tensor([0.0, 10.0, -10.0, 0.1]), torch.tensor([4, 1, 1, 2]), 1.2
    )
    assert weight_N.tolist() == pytest.approx([1.0, 1.2, 1 / 1.2, math.exp(0.05)])
    assert clipped_N.tolist() == [False, True, True, False]


def test_micro_batches_add_up_to_the_whole() -> None:
    values = data()
    whole = float(loss(values).loss)
    first = {k: v[:4] if k.endswith("_T") else v[:2] for k, v in values.items()} | {
        "cu_seqlens": torch.tensor([0, 3, 4])
    }
    rest = {k: v[4:] if k.endswith("_T") else v[2:] for k, v in values.items()}
    rest["cu_seqlens"] = values["cu_seqlens"][2:] - 4
    assert float(loss(first).loss + loss(rest).loss) == pytest.approx(whole)


def test_effective_sample_size() -> None:
    assert effective_sample_size(torch.ones(7)) == pytest.approx(1.0)
    assert effective_sample_size(torch.tensor([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(ValueError, match="nope"):
        loss(data(), target="nope")
