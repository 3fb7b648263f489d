"""Batches of groups through a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sppo.learner.model import Logprobs, Policy
from sppo.learner.objectives import Objective, ObjectiveBatch, Scored, Selection
from sppo.learner.objectives.base import Need, Scope, Stats
from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from sppo.transport import codec
from sppo.types import Group, Version
from tests import makers
from tests.unit.learner import teams
from tests.unit.learner.tiny import (
    compared,
    moved,
    on_policy,
    one_by_one,
    policy,
    settings,
    take,
)


def test_later_mini_batches_regress_against_the_weights_of_the_batchs_arrival(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    config = settings(mini_batches=3, steps=3)
    trainer = Trainer(config, model, Optimizer(config, model.master))
    before = [torch.cat(one_by_one(model, g)).detach() for g in groups[2:4]]
    records = list(trainer.train(groups, makers.V0))
    assert [r["step"] for r in records] == [1, 2, 3]
    assert records[0]["delta_mean"] is None  # its own anchor
    assert records[1]["delta_std"] > 0
    # the anchor of mini-batch 2 was taken before step 1 moved the weights
    behavior = [np.concatenate([c.behavior_logprobs for c in g.completions]) for g in groups[2:4]]
    log_rho = [float(a.sum() - m.sum()) for a, m in zip(before, behavior, strict=True)]
    completions = sum(len(g.completions) for g in groups[2:4])
    assert records[1]["log_rho_mean"] == pytest.approx(sum(log_rho) / completions, rel=1e-4)


def test_training_raises_the_probability_of_rewarded_completions(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    trainer = Trainer(settings(lr=3e-3), model, Optimizer(settings(lr=3e-3), model.master))

    def gap() -> float:
        total = 0.0
        for g in groups:
            sums = torch.stack([t.sum() for t in one_by_one(model, g)]).detach()
            assert g.rewards is not None
            total += float(sums[int(np.argmax(g.rewards))] - sums[int(np.argmin(g.rewards))])
        return total

    start = gap()
    version = makers.V0
    for _ in range(5):
        record = list(trainer.train(groups, version))[-1]
        version = Version(epoch=version.epoch, n=record["step"])
    assert gap() > start + 1.0


def test_mismatch_is_the_mean_gap_of_completions_at_this_version(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    gaps = [
        (a.detach() - torch.tensor(c.behavior_logprobs)).abs()
        for g in groups
        for a, c in zip(one_by_one(model, g), g.completions, strict=True)
    ]
    assert trainer.mismatch(groups, makers.V0).mean == pytest.approx(
        float(torch.cat(gaps).mean()), rel=1e-4
    )
    assert trainer.mismatch(groups, Version(epoch="e1", n=1)).mean is None


def test_completions_without_a_token_are_no_part_of_the_mismatch(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    none = makers.completion([])
    rest = replace(groups[1], completions=(none, *groups[1].completions[1:]))
    silent = replace(groups[0], completions=(none,) * len(groups[0].completions))
    spoken = groups[1].only(range(1, len(groups[1].completions)))
    alone = trainer.mismatch([spoken], makers.V0)
    assert len(alone.gap_T) > 0
    assert torch.equal(trainer.mismatch([silent, rest], makers.V0).gap_T, alone.gap_T)
    assert torch.equal(trainer.measure([silent, rest], makers.V0, None)[0].gap_T, alone.gap_T)
    assert trainer.mismatch([silent], makers.V0).mean is None
    assert trainer.measure([silent], makers.V0, None)[0].mean is None


def test_a_step_without_any_signal_goes_on_by_momentum(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    list(trainer.train(groups, makers.V0))
    before = {k: p.detach().clone() for k, p in model.master.items()}
    groups = [replace(g, rewards=np.ones(len(g.completions), np.float32)) for g in groups]
    record = next(iter(trainer.train(groups, makers.V0)))
    assert (record["no_signal_share"], record["grad_norm"], record["loss"]) == (1.0, 0.0, 0.0)
    assert any(not torch.equal(p, before[k]) for k, p in model.master.items())


def test_a_gradient_that_is_not_finite_moves_nothing(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    groups[0] = replace(
        groups[0], rewards=np.array([np.inf] + [0.0] * (len(groups[0].completions) - 1), np.float32)
    )
    before = {k: p.detach().clone() for k, p in model.master.items()}
    record = next(iter(trainer.train(groups, makers.V0)))
    assert record["skipped"].startswith("the loss is not finite")
    assert (record["loss"], record["grad_norm"], record["step"]) == (None, 0, 1)
    assert all(torch.equal(p, before[k]) for k, p in model.master.items())


def test_an_iterations_anchor_is_its_snapshot(path: str, groups: list[Group]) -> None:
    # Given weights that have moved since the snapshot was taken
    _, record = take(path, groups, move=True, anchor="iteration")
    # Then Δ is measured from the snapshot and ρ compares the snapshot with what sampled
    then, now = policy(path), policy(path)
    moved(now)
    deltas = [
        float((b - a).detach().sum())
        for g in groups
        for a, b in zip(one_by_one(then, g), one_by_one(now, g), strict=True)
    ]
    behavior = [float(c.behavior_logprobs.sum()) for g in groups for c in g.completions]
    anchor = [float(t.detach().sum()) for g in groups for t in one_by_one(then, g)]
    log_rho = [a - b for a, b in zip(anchor, behavior, strict=True)]
    assert record["delta_mean"] == pytest.approx(np.mean(deltas), abs=1e-5)
    assert record["log_rho_mean"] == pytest.approx(np.mean(log_rho), abs=1e-4)
    assert record["mismatch"] is not None  # the engines run the snapshot
    assert record["staleness_max"] == 1


def test_the_behavior_anchor_takes_what_sampled_as_it_was_recorded(
    path: str, groups: list[Group]
) -> None:
    _, record = take(path, groups, anchor="behavior")
    fresh = policy(path)
    delta = [
        float(t.detach().sum()) - float(c.behavior_logprobs.sum())
        for g in groups
        for t, c in zip(one_by_one(fresh, g), g.completions, strict=True)
    ]
    assert record["delta_mean"] == pytest.approx(np.mean(delta), rel=1e-4)
    assert (record["log_rho_std"], record["weight_mean"], record["effective_sample_size"]) == (
        0,
        1,
        1,
    )


def test_a_batch_softmean_is_of_the_whole_batch_whatever_the_mini_batch(
    path: str, groups: list[Group]
) -> None:
    model, config = (
        policy(path),
        settings(mini_batches=3, steps=3, target="batch_softmean", weight="none", eta=2.0),
    )
    records = list(Trainer(config, model, Optimizer(config, model.master)).train(groups, makers.V0))
    rewards = np.concatenate([g.rewards for g in groups if g.rewards is not None])
    soft_mean = np.log(np.exp(2.0 * rewards).mean()) / 2.0
    for part, record in zip((groups[:2], groups[2:4], groups[4:]), records, strict=True):
        own = np.concatenate([g.rewards for g in part if g.rewards is not None])
        assert record["target_mean"] == pytest.approx(own.mean() - soft_mean, abs=1e-6)


def test_linked_rewards_are_win_rates(path: str, groups: list[Group]) -> None:
    _, record = take(
        path, groups, target="half", link="bradley-terry", link_temperature=0.5, weight="none"
    )
    assert record["target_mean"] == pytest.approx(
        0, abs=1e-6
    )  # win rates of a group sum to K/2, wins and losses alike
    assert record["residual_std"] > 0


def test_groups_without_weight_are_counted_and_not_trained(path: str, groups: list[Group]) -> None:
    groups = on_policy(policy(path), groups)
    far = [replace(c, behavior_logprobs=c.behavior_logprobs - 3) for c in groups[0].completions]
    groups[0] = replace(groups[0], completions=tuple(far))
    _, record = take(path, groups, weight="masked")
    assert record["groups_without_weight"] == 1
    assert record["weight_clipped_share"] == pytest.approx(
        len(far) / sum(len(g.completions) for g in groups)
    )
    assert record["effective_sample_size"] < 1


def test_the_kl_term_pulls_back_to_the_reference(path: str, groups: list[Group]) -> None:
    groups = [replace(g, rewards=np.zeros(len(g.completions), np.float32)) for g in groups]

    def divergence(model: Policy) -> float:
        then = policy(path)
        gaps = [
            a - b
            for g in groups
            for a, b in zip(one_by_one(then, g), one_by_one(model, g), strict=True)
        ]
        d_T = torch.cat(gaps).detach()
        return float((d_T.exp() - d_T - 1).mean())

    start = policy(path)
    moved(start)
    model, record = take(path, groups, move=True, kl_coef=1.0)
    assert record["kl"] == pytest.approx(divergence(start), rel=1e-3)
    assert divergence(model) < 0.9 * divergence(start)
    assert take(path, groups)[1]["kl"] is None


def test_the_entropy_bonus_raises_the_entropy(path: str, groups: list[Group]) -> None:
    groups = [replace(g, rewards=np.zeros(len(g.completions), np.float32)) for g in groups]
    config = settings(lr=1e-2, entropy_coef=1.0, weight="none")
    model = policy(path)
    trainer = Trainer(config, model, Optimizer(config, model.master))
    entropies = [next(iter(trainer.train(groups, makers.V0)))["entropy"] for _ in range(3)]
    assert entropies[0] < entropies[1] < entropies[2]


def test_the_mismatch_at_a_snapshot_is_that_of_its_weights(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    before = trainer.mismatch(groups, makers.V0).mean
    model.keep("probe", device="cpu")
    moved(model)
    assert trainer.mismatch(groups, makers.V0, "probe").mean == before
    assert trainer.mismatch(groups, makers.V0).mean != pytest.approx(before, rel=1e-3)


class Flawed:
    """An objective of one's own that goes wrong in one way."""

    scope: Scope = "group"
    needs: frozenset[Need] = frozenset()

    def __init__(self, how: str) -> None:
        self._how = how

    def select(self, scored: Scored) -> Selection:
        everything_N = torch.ones(len(scored.length_N), dtype=torch.bool)
        idle_G = torch.zeros(len(scored.group_offsets) - 1, dtype=torch.bool)
        return Selection(keep_N=everything_N, fed_N=everything_N, idle_G=idle_G)

    def loss(self, batch: ObjectiveBatch) -> tuple[Tensor, Stats]:
        loss = batch.logprob_T.sum() / batch.tokens
        if self._how == "no gradient":
            return loss.detach(), {}
        return loss * float("nan") if self._how == "NaN" else loss, {}

    def summary(self, stats: Stats) -> dict[str, float | None]:
        return {}


@pytest.mark.parametrize(
    ("how", "said"), [("NaN", "not finite"), ("no gradient", "without a gradient")]
)
@pytest.mark.parametrize("budget", [1, 64])
def test_a_step_whose_loss_is_of_no_use_is_skipped_and_said(
    path: str, groups: list[Group], how: str, said: str, budget: int
) -> None:
    config = settings(micro_batch_tokens=budget)
    model = policy(path)
    before = {k: p.detach().clone() for k, p in model.master.items()}

    def step(objective: Objective, n: int) -> dict[str, Any]:
        trainer = Trainer(config, model, Optimizer(config, model.master), objective=objective)
        return next(iter(trainer.train(groups, Version(epoch="e1", n=n))))

    record = step(Flawed(how), 0)
    assert said in record["skipped"]
    assert (record["step"], record["grad_norm"]) == (1, 0)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert all(torch.equal(p, before[k]) for k, p in model.master.items())
    # And the next step is none the worse for it
    record = step(Flawed(""), 1)
    assert (record["skipped"], record["step"]) == (None, 2)
    assert any(not torch.equal(p, before[k]) for k, p in model.master.items())


def test_a_loss_of_no_use_on_one_rank_skips_the_step_on_all(path: str, groups: list[Group]) -> None:
    # Given two ranks, of which one has the group with a reward of infinity
    config = settings(groups_per_step=2)
    groups = groups[:2]
    far = np.full(len(groups[1].completions), np.inf, np.float32)
    groups[1] = replace(groups[1], rewards=far)
    models = [policy(path), policy(path)]
    before = {k: p.detach().clone() for k, p in models[0].master.items()}

    def work(team: teams.ThreadTeam) -> list[dict[str, Any]]:
        model = models[team.rank]
        return teams.train(config, model, team, groups, makers.V0)

    records = teams.together(2, work)[0]
    assert "not finite" in records[0]["skipped"]
    for model in models:
        assert all(torch.equal(p, before[k]) for k, p in model.master.items())


def test_a_batch_is_trained_for_several_epochs_in_mini_batches_drawn_anew(
    path: str, groups: list[Group]
) -> None:
    # Given a batch of six groups, two mini-batches and three epochs
    config, model = settings(mini_batches=2, epochs=3, steps=6), policy(path)
    anchor = {g.uid: torch.cat(one_by_one(model, g)).detach() for g in groups}
    trainer = Trainer(config, model, Optimizer(config, model.master))
    records = list(trainer.train(groups, makers.V0))
    # Then each epoch trains every group once, in the order of arrival first and another later
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    epochs = [records[i]["tickets"] + records[i + 1]["tickets"] for i in (0, 2, 4)]
    assert epochs[0] == [g.uid for g in groups]
    assert all(sorted(tickets) == epochs[0] for tickets in epochs)
    assert epochs[1] != epochs[0] != epochs[2]
    # and log-ratios are against the weights of the batch's arrival, even in the last
    behavior = {
        g.uid: torch.from_numpy(np.concatenate([c.behavior_logprobs for c in g.completions]))
        for g in groups
    }
    for record in records:
        log_rho_T = torch.cat([anchor[uid] - behavior[uid] for uid in record["tickets"]])
        assert record["log_rho_token_mean"] == pytest.approx(float(log_rho_T.mean()), rel=1e-4)
    assert records[0]["delta_mean"] is None
    assert all(abs(r["delta_mean"]) > 0 for r in records[1:])
    # and staleness is counted at the use of each mini-batch
    assert [r["staleness_max"] for r in records] == [0, 1, 2, 3, 4, 5]
    again = policy(path)
    same = list(Trainer(config, again, Optimizer(config, again.master)).train(groups, makers.V0))
    assert [r["tickets"] for r in same] == [r["tickets"] for r in records]


def test_log_probs_are_at_the_objectives_temperature_and_mismatch_at_the_sampling_one(
    path: str, groups: list[Group]
) -> None:
    # Given completions of this policy at temperature 0.7, trained at 1.4
    sections = makers.sections(groups_per_step=6, lr=1e-3, weight="none", temperature=1.4)
    config = makers.run_config(**sections, sampling={"temperature": 0.7})
    how = Logprobs.of(config, "cpu")
    assert (how.temperature, how.sampling) == (1.4, 0.7)
    model = Policy(path, device="cpu", logprobs=how, compute=torch.float32)
    groups = on_policy(policy(path), groups)
    trainer = Trainer(config, model, Optimizer(config, model.master))
    # Then engine and learner agree where they are compared, and a step's log-probs are others
    assert trainer.mismatch(groups, makers.V0).mean == pytest.approx(0, abs=1e-5)
    record = next(iter(trainer.train(groups, makers.V0)))
    assert record["mismatch"] is None
    assert record["log_rho_token_std"] > 0.01
    assert record["entropy"] > take(path, groups)[1]["entropy"]


def partly_compared(groups: list[Group]) -> list[Group]:
    """As they come over the wire: each completion compared with the next, and in the first group
    the last one with nobody.
    """
    made = []
    for g, group in enumerate(compared(groups)):
        table = group.preferences
        assert table is not None
        k = len(table)
        met = np.eye(k, dtype=bool)
        for i in range(k - 1 - (g == 0)):
            met[i, i + 1] = met[i + 1, i] = True
        partial = replace(group, preferences=np.where(met, table, np.nan).astype(np.float32))
        made.append(codec.decode_group(codec.encode_group(partial)))
    return made


@pytest.mark.parametrize("changes", [{}, {"target": "softmean"}, {"name": "inpo"}])
def test_partly_compared_groups_are_trained_alike_by_one_rank_and_by_two(
    path: str, changes: dict[str, Any]
) -> None:
    # Given groups of four of which the first has one that met nobody
    rng = np.random.default_rng(5)
    groups = partly_compared(makers.random_groups(rng, 4, size=4, vocabulary=61))
    config = settings(groups_per_step=4, **changes)

    def train(ranks: int) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        models = [policy(path) for _ in range(ranks)]

        def work(team: teams.ThreadTeam) -> list[dict[str, Any]]:
            return teams.train(config, models[team.rank], team, groups, makers.V0)

        records = teams.together(ranks, work)[0]
        return records, {k: p.detach() for k, p in models[0].master.items()}

    (whole, alone), (parts, _) = train(1), train(2)
    # Then it is counted, nothing of the step is NaN, and two ranks find what one does
    assert whole[0]["unmet"] == parts[0]["unmet"] == 1
    assert whole[0]["compared_share"] == pytest.approx((2 + 3 * 3) / (4 * 6))
    assert json.loads(json.dumps(whole[0], allow_nan=False)) == whole[0]
    for name in ("loss", "residual_std", "target_mean", "weight_mean", "entropy"):
        assert parts[0][name] == pytest.approx(whole[0][name], rel=1e-4, abs=1e-6), name
    # and the group trains as if that one had never been sampled
    first = groups[0].only([0, 1, 2])
    assert [len(g.completions) for g in (groups[0], first)] == [4, 3]
    groups = [first, *groups[1:]]
    same, without = train(1)
    assert same[0]["loss"] == whole[0]["loss"]
    assert all(torch.equal(without[name], weight) for name, weight in alone.items())
