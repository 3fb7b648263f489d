"""`sppo`: what is selected and fed, and the loss as the kernels make it of the same tensors."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo import kernels
from sppo.learner.objectives import make, targets
from tests.unit.learner.objectives import makers

IDS = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
MODES = list(
    itertools.product(
        ["centered", "softmean", "batch_softmean", "half"],
        ["none", "geometric", "sequence", "masked"],
        ["all", "best_worst"],
    )
)


def by_kernels(batch: makers.ObjectiveBatch, target: str, weight: str, select: str) -> Tensor:
    """Weights, then targets over every completion, then the sum over the kept ones."""
    assert batch.anchor_T is not None
    given: dict[str, Any] = {"rewards_N": batch.rewards_N, "preferences": batch.preferences}
    _, log_rho_N, length_N = kernels.sequence_log_ratios(
        batch.logprob_T, batch.anchor_T, batch.behavior_T, None, batch.cu_seqlens
    )
    weight_N, _ = kernels.sequence_weights(weight, log_rho_N, length_N)
    weighted = {"weights_N": None if weight == "none" else weight_N}
    scores_N = targets.compute_scores(group_ids_N=IDS, **given)
    keep_N = targets.select_completions(select, scores_N, IDS)
    if target == "centered":
        target_N = targets.compute_scores(group_ids_N=IDS, **given, **weighted)
    else:
        target_N = targets.compute_targets(target, eta=1.5, group_ids_N=IDS, **given, **weighted)
    keep_T = torch.repeat_interleave(keep_N, batch.length_N)
    sizes = [int(part.sum()) for part in torch.split(keep_N, makers.SIZES)]
    return kernels.sppo_loss(
        batch.logprob_T[keep_T],
        batch.anchor_T[keep_T],
        batch.behavior_T[keep_T],
        None,
        makers.offsets(batch.length_N[keep_N].tolist()),
        target_N[keep_N],
        eta=1.5,
        group_offsets=makers.offsets(sizes),
        centered=target == "centered",
        weight_mode=weight,
        normalizer=int(keep_N.sum()),
    )[0]


@pytest.mark.parametrize(("target", "weight", "select"), MODES)
@pytest.mark.parametrize("compared", [False, True])
def test_the_loss_is_that_of_the_kernels_to_the_bit(
    target: str, weight: str, select: str, compared: bool
) -> None:
    if target == "half" and not compared:
        return
    for seed in range(3):
        batch = makers.random_batch(seed, compared=compared)
        changes = {"target": target, "weight": weight, "select": select, "eta": 1.5}
        found = makers.value(changes, batch)
        assert found == float(by_kernels(batch, target, weight, select))


@pytest.mark.parametrize(
    ("changes", "compared", "fixed"),
    [
        ({}, False, True),  # rewards, centered
        ({}, True, False),  # win rates under weights
        ({"weight": "none"}, True, True),
        ({"weight": "none", "reject": "token"}, True, False),
        ({"anchor": "behavior"}, True, True),
        ({"target": "softmean"}, False, False),
        ({"target": "batch_softmean"}, False, True),
        ({"target": "half", "select": "best_worst", "label": "hard"}, True, True),
        ({"target": "half", "select": "best_worst"}, True, False),
    ],
)
def test_targets_are_fixed_beforehand_where_no_weight_decides_them(
    changes: dict[str, Any], compared: bool, fixed: bool
) -> None:
    batch = makers.random_batch(compared=compared)
    found = make(makers.settings(**changes)).select(makers.scored(batch))
    assert (found.target_N is not None) == fixed
    assert found.fed_N.all() or (fixed and found.fed_N.tolist() == found.keep_N.tolist())


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({}, [False, True, False]),
        ({"target": "softmean"}, [False, True, False]),
        ({"target": "batch_softmean"}, [False] * 3),
        ({"kl_coef": 0.1}, [False] * 3),
        ({"entropy_coef": 0.1}, [False] * 3),
        ({"select": "best_worst"}, [False, True, False]),
        ({"truncated": "mask"}, [True, True, False]),
        ({"truncated": "zero"}, [True, True, False]),
    ],
)
def test_groups_whose_scores_are_all_equal_are_idle(
    changes: dict[str, Any], idle: list[bool]
) -> None:
    # Given a second group of equal rewards, and a first of which one completion was cut
    rewards_N = torch.tensor([0.0, 1, 0, 0, 0, 1, 2, 3, 4], dtype=torch.float64)
    finished_N = torch.tensor([True, False, *[True] * 7])
    batch = makers.random_batch(rewards_N=rewards_N, finished_N=finished_N)
    found = make(makers.settings(**changes)).select(makers.scored(batch))
    assert found.idle_G.tolist() == idle


def test_a_group_that_all_tie_in_win_rate_has_no_signal_for_best_and_worst() -> None:
    cycle = torch.tensor([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], dtype=torch.float64)
    tables = list(makers.preferences(0, makers.SIZES))
    tables[1] = cycle
    batch = makers.random_batch(compared=True, preferences=tuple(tables))
    found = make(makers.settings(select="best_worst")).select(makers.scored(batch))
    assert found.keep_N[2:5].tolist() == [True, False, False]
    assert found.idle_G.tolist() == [False, True, False]


def test_a_rejected_completion_takes_no_part_in_the_mean_of_its_group() -> None:
    """Δ = (0, 0, 0, −40), s = (1, 0, 1, 0), the last one rejected: residuals −0.33, 0.67, −0.33."""
    delta_N = torch.tensor([0.0, 0, 0, -40], dtype=torch.float64)
    far_N = torch.tensor([0.0, 0, 0, -5], dtype=torch.float64)  # log ρ
    batch = replace(
        makers.random_batch(),
        logprob_T=delta_N - 1,
        entropy_T=torch.zeros(4, dtype=torch.float64),
        anchor_T=torch.full((4,), -1.0, dtype=torch.float64),
        behavior_T=-1 - far_N,
        reference_T=None,
        cu_seqlens=torch.arange(5),
        group_offsets=torch.tensor([0, 4]),
        keep_N=torch.ones(4, dtype=torch.bool),
        rewards_N=torch.tensor([1.0, 0, 1, 0], dtype=torch.float64),
        finished_N=torch.ones(4, dtype=torch.bool),
    )
    for changes in (
        {"weight": "masked"},
        {"weight": "none", "reject": "geometric"},
        {"weight": "token", "reject": "token"},
    ):
        objective = make(makers.settings(**changes))
        loss, stats = makers.evaluate(objective, batch)
        assert stats["residual_N"].tolist() == pytest.approx([-0.33, 0.67, -0.33], abs=5e-3)
        assert float(loss) == pytest.approx((1 / 9 + 4 / 9 + 1 / 9) / 4)
        assert stats["target_N"].tolist() == pytest.approx([1 / 3, -2 / 3, 1 / 3])
        assert objective.summary(stats)["delta_mean"] == 0


def test_a_masked_truncated_completion_is_in_no_sum_and_no_mean() -> None:
    finished_N = torch.tensor([True] * 8 + [False])
    batch = makers.random_batch(1, finished_N=finished_N)
    assert batch.rewards_N is not None
    absent = replace(batch, keep_N=finished_N).kept()  # as if it had never been sampled
    for target in ("centered", "softmean", "batch_softmean"):
        found = makers.value({"target": target, "truncated": "mask"}, batch)
        assert found == pytest.approx(makers.value({"target": target}, absent), rel=1e-12)


def test_a_truncated_completion_scored_0() -> None:
    finished_N = torch.tensor([True] * 8 + [False])
    batch = makers.random_batch(1, finished_N=finished_N)
    assert batch.rewards_N is not None
    scored_0 = replace(batch, rewards_N=torch.where(finished_N, batch.rewards_N, 0.0))
    for target in ("centered", "softmean"):
        found = makers.value({"target": target, "truncated": "zero"}, batch)
        assert found == makers.value({"target": target}, scored_0)


def test_weights_of_tokens_multiply_what_each_adds_to_the_log_ratio() -> None:
    batch, eta = makers.random_batch(2), 1.5
    assert batch.rewards_N is not None
    assert batch.anchor_T is not None
    ratio_T = (batch.anchor_T - batch.behavior_T).exp().clamp(max=1.3)
    added_T = ratio_T * (batch.logprob_T - batch.anchor_T)
    delta = makers.summed(added_T, torch.zeros_like(added_T))
    wanted = 0.0
    for members in makers.groups():
        off = {i: delta[i] - eta * float(batch.rewards_N[i]) for i in members}
        mean = sum(off.values()) / len(off)
        wanted += sum((x - mean) ** 2 for x in off.values()) / 9
    changes = {"weight": "token", "weight_cap": 1.3, "eta": eta}
    assert makers.value(changes, batch) == pytest.approx(wanted, rel=1e-12)


def test_on_its_own_anchor_weights_of_tokens_are_those_of_a_policy_gradient() -> None:
    """−2 η A_i min(ρ_t, cap) / completions for each token."""
    batch = makers.random_batch(3)
    batch = replace(batch, logprob_T=batch.anchor_T, own_anchor=True)
    assert batch.rewards_N is not None
    assert batch.anchor_T is not None
    ratio_T = (batch.anchor_T - batch.behavior_T).exp().clamp(max=2.0)
    advantage_N = batch.rewards_N - targets.group_mean(batch.rewards_N, IDS)
    wanted_T = -2 * ratio_T * torch.repeat_interleave(advantage_N, batch.length_N) / 9
    objective = make(makers.settings(weight="token"))
    assert torch.allclose(makers.gradient(objective, batch), wanted_T, rtol=1e-12)
    _, stats = makers.evaluate(objective, batch)
    assert objective.summary(stats)["weight_mean"] == pytest.approx(float(ratio_T.mean()))


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "softmean", "weight": "token"},
        {"target": "softmean", "reject": "geometric"},
        {"target": "softmean", "reject": "token", "length_normalize": True},
        {"target": "softmean", "kl_coef": 0.3, "kl_estimator": "k1"},
        {"target": "softmean", "kl_coef": 0.3, "kl_estimator": "k2"},
        {"target": "softmean", "kl_coef": 0.3, "kl_estimator": "k3"},
        {"weight": "none", "kl_coef": 0.3},
    ],
)
def test_the_gradient_agrees_with_finite_differences(changes: dict[str, Any]) -> None:
    objective = make(makers.settings(eta=1.5, **changes))
    assert makers.off_differences(objective, makers.random_batch(4)) < 1e-6


def test_terms_are_normalised_over_the_whole_mini_batch() -> None:
    """The shares of disjoint parts add up to the loss of the whole, terms included."""
    changes: dict[str, Any] = {"kl_coef": 0.3, "entropy_coef": 0.2}
    objective = make(makers.settings(**changes))
    batch = makers.random_batch(5)
    whole = makers.fed(batch, objective.select(makers.scored(batch)))
    parts = 0.0
    for g, k in enumerate(makers.SIZES):
        alone = replace(whole, keep_N=g == IDS).kept()
        one = replace(alone, group_offsets=torch.tensor([0, k]))
        parts += float(objective.loss(one)[0])
    assert parts == pytest.approx(float(objective.loss(whole)[0]), rel=1e-12)


def test_metrics_of_a_step() -> None:
    objective = make(makers.settings(weight="sequence", kl_coef=0.1))
    batch = makers.random_batch(6)
    _, stats = makers.evaluate(objective, batch)
    found = objective.summary(stats)
    delta, log_rho = (
        torch.tensor(makers.summed(one, two))
        for one, two in ((batch.logprob_T, batch.anchor_T), (batch.anchor_T, batch.behavior_T))
    )
    assert found["delta_mean"] == pytest.approx(float(delta.mean()))
    assert found["log_rho_std"] == pytest.approx(float(log_rho.std()))
    assert found["weight_mean"] == pytest.approx(float(log_rho.exp().clamp(max=2).mean()))
    assert found["groups_without_weight"] == 0
    own = makers.evaluate(objective, replace(batch, own_anchor=True))[1]
    assert objective.summary(own)["delta_mean"] is None


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({}, {"anchor"}),
        ({"kl_coef": 0.1}, {"anchor", "reference"}),
        ({"target": "half"}, {"anchor", "preferences"}),
        ({"target": "half", "link": "bradley-terry"}, {"anchor"}),
        ({"target": "half", "select": "best_worst", "label": "hard"}, {"anchor"}),
    ],
)
def test_what_it_needs(changes: dict[str, Any], needs: set[str]) -> None:
    assert make(makers.settings(**changes)).needs == needs
