"""One optimizer step: layouts, micro-batches and passes must not change the mathematics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sppo import kernels
from sppo.config import ObjectiveConfig, RunConfig
from sppo.learner import batching, shares
from sppo.learner.model import Policy
from sppo.learner.objectives import targets as objective
from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from sppo.types import Completion, Group, Version
from tests import makers
from tests.unit.learner.conftest import some_groups
from tests.unit.learner.tiny import (
    compared,
    gradients,
    moved,
    on_policy,
    one_by_one,
    policy,
    settings,
    take,
    without_signal,
)


@pytest.mark.parametrize(
    "changes", [{"micro_batch_tokens": 1}, {"share_prompt": False}, {"target": "softmean"}]
)
def test_gradients_do_not_depend_on_the_layout(
    path: str, groups: list[Group], changes: dict[str, Any]
) -> None:
    base = {k: v for k, v in changes.items() if k == "target"}
    one = gradients(path, groups, **(base | {"micro_batch_tokens": 10_000}))
    other = gradients(path, groups, **changes)
    assert one.keys() == other.keys()
    for name, expected in one.items():
        assert float((other[name] - expected).norm() / expected.norm()) < 1e-4, name


def test_the_first_mini_batch_as_its_own_anchor_equals_an_explicit_recompute(
    path: str, groups: list[Group]
) -> None:
    # Given one trainer with the shortcut, and one that scores a snapshot of the same weights
    # beforehand
    def step(explicit: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
        model = policy(path)
        config = settings(anchor="iteration")
        trainer = Trainer(config, model, Optimizer(config, model.master))
        model.keep("anchor", device="cpu")
        now = Version(epoch=makers.V0.epoch, n=1)
        record = next(iter(trainer.train(groups, now, makers.V0 if explicit else now)))
        return record, {k: p.detach().clone() for k, p in model.master.items()}

    (short, weights), (long, expected) = step(False), step(True)
    # Then loss, norm and updated weights agree
    assert (short["delta_mean"], long["delta_mean"]) == (None, pytest.approx(0, abs=1e-5))
    assert short["loss"] == pytest.approx(long["loss"], rel=1e-5)
    assert short["grad_norm"] == pytest.approx(long["grad_norm"], rel=1e-4)
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[name], atol=2e-5), name


@pytest.mark.parametrize("target", ["half", "softmean", "centered"])
def test_completions_that_are_not_selected_are_not_needed_for_the_gradient(
    path: str, groups: list[Group], target: str
) -> None:
    """Without weights the others are not fed at all; with weights of 1 they are, and change
    nothing.
    """
    groups = compared(on_policy(policy(path), groups))
    trimmed = gradients(path, groups, target=target, select="best_worst", weight="none")
    whole = gradients(path, groups, target=target, select="best_worst", weight="sequence")
    for name, expected in trimmed.items():
        assert float((whole[name] - expected).norm() / expected.norm()) < 1e-3, name
    _, record = take(path, groups, target=target, select="best_worst", weight="none")
    kept = sum(2 for _ in groups)
    assert record["length_mean"] == pytest.approx(record["tokens"] / kept)
    assert record["tokens"] < sum(g.tokens for g in groups)
    total = sum(len(g.completions) for g in groups)
    assert record["generated_length_mean"] == pytest.approx(sum(g.tokens for g in groups) / total)


CASES = {
    "soft mean, geometric": {"target": "softmean", "weight": "geometric"},
    "soft mean, its cap": {"target": "softmean", "weight": "geometric", "weight_cap": 1.05},
    "soft mean, sequence": {"target": "softmean", "weight": "sequence", "eta": 3.0},
    "batch soft mean, masked": {"target": "batch_softmean", "weight": "masked"},
    "centered, geometric": {"target": "centered", "weight": "geometric"},
    "linked": {
        "target": "half",
        "link": "bradley-terry",
        "link_temperature": 0.25,
        "weight": "sequence",
    },
    "best and worst, weighted": {
        "target": "half",
        "select": "best_worst",
        "weight": "sequence",
        "compared": True,
    },
    "pair": {
        "target": "half",
        "select": "best_worst",
        "label": "pair",
        "weight": "geometric",
        "compared": True,
    },
    "hard": {"target": "half", "select": "best_worst", "label": "hard", "weight": "none"},
    "length": {"target": "softmean", "weight": "geometric", "length_normalize": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """One step on stale completions, as it was taken, and put together from log-probs one by
    one.
    """

    config: RunConfig
    record: dict[str, Any]
    """Of the step that was taken."""
    loss: float
    stats: kernels.LossStats
    clipped_share: float


@pytest.fixture(params=CASES, scope="module")
def apart(path: str, request: pytest.FixtureRequest) -> Apart:
    changes: dict[str, Any] = dict(CASES[request.param])
    then, now = policy(path), policy(path)
    moved(now)
    groups = on_policy(then, some_groups())
    groups = stale(compared(groups) if changes.pop("compared", False) else groups)
    config = settings(anchor="iteration", **changes)
    _, record = take(path, groups, move=True, anchor="iteration", **changes)
    loss, stats, clipped_share = by_hand(config, groups, now, then)
    return Apart(config=config, record=record, loss=loss, stats=stats, clipped_share=clipped_share)


def stale(groups: list[Group]) -> list[Group]:
    """Sampled by something near the snapshot: some weights meet their caps and some do not."""
    rng = np.random.default_rng(1)

    def older(c: Completion) -> Completion:
        moved = c.behavior_logprobs + rng.normal(0, 0.2)
        return replace(c, behavior_logprobs=moved.astype(np.float32))

    return [replace(g, completions=tuple(map(older, g.completions))) for g in groups]


def by_hand(
    config: RunConfig, groups: list[Group], now: Policy, then: Policy
) -> tuple[float, kernels.LossStats, float]:
    """Loss, figures, and the share of weights that met their cap."""
    sizes = [len(g.completions) for g in groups]
    logprob, anchor = (
        [t.detach() for g in groups for t in one_by_one(model, g)] for model in (now, then)
    )
    behavior = [torch.from_numpy(c.behavior_logprobs) for g in groups for c in g.completions]
    length_N = torch.tensor([len(t) for t in logprob])
    log_rho_N = torch.stack([(a - b).sum() for a, b in zip(anchor, behavior, strict=True)])
    cap = config.objective.weight_cap or None
    weight_N, clipped_N = kernels.sequence_weights(
        config.objective.weight, log_rho_N, length_N, cap=cap
    )
    target_N, keep_N = targets_by_hand(config.objective, groups, weight_N)
    keep_T = keep_N.repeat_interleave(length_N)
    kept = [int(k.sum()) for k in keep_N.split(sizes)]
    tokens = {"logprob_T": logprob, "anchor_T": anchor, "behavior_T": behavior}
    loss, stats = kernels.sppo_loss(
        **{name: torch.cat(values)[keep_T] for name, values in tokens.items()},
        mask_T=None,
        cu_seqlens=torch.nn.functional.pad(length_N[keep_N].cumsum(0), (1, 0)),
        targets_N=target_N[keep_N],
        eta=config.objective.eta,
        group_offsets=torch.tensor([0, *np.cumsum(kept)]),
        centered=config.objective.target == "centered",
        weight_mode=config.objective.weight,
        cap=cap,
        length_normalized=config.objective.length_normalize,
    )
    return float(loss), stats, float(clipped_N.double().mean())


def targets_by_hand(
    wanted: ObjectiveConfig, groups: list[Group], weight_N: Tensor
) -> tuple[Tensor, Tensor]:
    """A [N], and which completions are trained [N]."""
    ids_N = torch.arange(len(groups)).repeat_interleave(
        torch.tensor([len(g.completions) for g in groups])
    )
    rewards_N = (
        None if groups[0].rewards is None else torch.cat([torch.tensor(g.rewards) for g in groups])
    )
    tables = None if rewards_N is not None else [torch.tensor(g.preferences) for g in groups]
    if wanted.link == "bradley-terry":
        assert rewards_N is not None
        tables = objective.bradley_terry(rewards_N, ids_N, temperature=wanted.link_temperature)
        rewards_N = None
    scored: dict[str, Any] = {"group_ids_N": ids_N, "rewards_N": rewards_N, "preferences": tables}
    score_N = objective.compute_scores(**scored)
    keep_N = objective.select_completions(wanted.select, score_N, ids_N)
    if wanted.label != "group":
        target_N = objective.pair_targets(
            wanted.label, kept_N=keep_N, scores_N=score_N, group_ids_N=ids_N, preferences=tables
        )
    elif wanted.target == "centered":
        target_N = score_N
    else:
        target_N = objective.compute_targets(
            wanted.target, eta=wanted.eta, weights_N=weight_N, **scored
        )
    return target_N, keep_N


def test_a_step_is_the_objective_of_these_log_probs(apart: Apart) -> None:
    assert apart.record["loss"] == pytest.approx(apart.loss, rel=1e-4)


def test_weights_from_stale_completions_reach_the_loss(apart: Apart) -> None:
    assert apart.config.objective.weight == "none" or 0 < apart.clipped_share < 1
    mean = float(apart.stats.weight_N.mean())
    assert apart.record["weight_mean"] == pytest.approx(mean, rel=1e-4)


def test_targets_and_residuals_are_told_of_those_that_take_part(apart: Apart) -> None:
    counts_N = apart.stats.weight_N != 0  # a rejected completion takes no part
    target = apart.stats.target_N[counts_N].mean()
    assert apart.record["target_mean"] == pytest.approx(float(target), abs=1e-5)
    residual = apart.stats.residual_N[counts_N].std()
    assert apart.record["residual_std"] == pytest.approx(float(residual), rel=1e-4)


@pytest.mark.parametrize("changes", [{}, {"target": "softmean"}, {"select": "best_worst"}])
def test_groups_without_a_gradient_stay_out_of_the_model_and_change_nothing(
    path: str, groups: list[Group], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a batch of which four groups in six have no signal
    groups = [g if i in (1, 4) else without_signal(g) for i, g in enumerate(groups)]
    fed: list[int] = []

    def step(*, skip: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if not skip:
            monkeypatch.setattr(shares, "fed_items", lambda items, **_: items)
        model, record = take(path, groups, **changes)
        monkeypatch.undo()
        return record, {name: p.detach().clone() for name, p in model.master.items()}

    plain = Policy.logprobs

    def counted(self: Policy, batch: batching.MicroBatch, **options: Any) -> Any:
        fed.append(len(batch.parts))
        return plain(self, batch, **options)

    # When it is trained with and without what saves them the way
    monkeypatch.setattr(Policy, "logprobs", counted)
    record, weights = step(skip=True)
    # Then three groups went through the model: two with a signal, one that was drawn to tell of the
    # others
    assert sum(fed) == 3
    whole, expected = step(skip=False)
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name]), name
    # And what does not depend on the learner's log-probs is counted over all of them
    for name in (
        "loss",
        "grad_norm",
        "no_signal_share",
        "tokens",
        "length_mean",
        "reward_mean",
        "staleness_mean",
    ):
        assert record[name] == pytest.approx(whole[name], rel=1e-6), name
    assert (whole["measured_share"], 0 < record["measured_share"] < 1) == (1, True)


@pytest.mark.parametrize(
    "changes",
    [{"kl_coef": 0.1}, {"entropy_coef": 0.1}, {"anchor": "behavior"}, {"anchor": "iteration"}],
)
def test_groups_without_a_signal_are_fed_where_they_have_a_gradient(
    path: str, groups: list[Group], changes: dict[str, Any]
) -> None:
    groups = [without_signal(g) for g in groups]
    _, record = take(path, groups, move=True, **changes)
    assert record["measured_share"] == 1
    assert record["grad_norm"] > 0
