"""A tiny Llama in float32: layouts, micro-batches and mini-batches must not change the mathematics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sppo.config import LearnerConfig
from sppo.learner import batching
from sppo.learner.model import Policy
from sppo.learner.optim import Optimizer
from sppo.learner.step import Trainer
from sppo.metrics import METRICS
from sppo.types import Group, Version
from tests import makers

VOCABULARY = 61
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return makers.tiny_model(tmp_path_factory.mktemp("model"), vocabulary=VOCABULARY)


@pytest.fixture
def groups() -> list[Group]:
    made = makers.random_groups(np.random.default_rng(3), 6, vocabulary=VOCABULARY)
    made[3].rewards[:] = 0.5  # one group without a signal
    return made


def policy(path: str) -> Policy:
    return Policy(path, device="cpu", temperature=TEMPERATURE, compute=torch.float32)


def settings(**changes: Any) -> LearnerConfig:
    return LearnerConfig(**({"groups_per_step": 6, "lr": 1e-3, "micro_batch_tokens": 64} | changes))


def one_by_one(model: Policy, group: Group) -> list[Tensor]:
    """Log-probs of each completion by a plain forward of prompt and completion."""
    results = []
    for completion in group.completions:
        tokens = torch.tensor([*group.prompt_ids, *completion.token_ids], dtype=torch.int64)[None]
        logits_TV = model.module(input_ids=tokens).logits[0, len(group.prompt_ids) - 1 : -1] / TEMPERATURE
        target_T = tokens[0, len(group.prompt_ids) :]
        results.append(logits_TV.log_softmax(-1).gather(-1, target_T[:, None])[:, 0])
    return results


@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("budget", [20, 10_000])
def test_packed_log_probs_are_those_of_each_completion_alone(
    path: str, groups: list[Group], share_prompt: bool, budget: int
) -> None:
    model = policy(path)
    for members in batching.plan(groups, budget, share_prompt):
        batch = batching.collate(groups, members, share_prompt=share_prompt, device="cpu")
        logprob_T, entropy_T = model.logprobs(batch, entropy=True)
        expected_T = torch.cat([t for i in members for t in one_by_one(model, groups[i])])
        assert torch.allclose(logprob_T, expected_T, atol=1e-5)
        assert entropy_T is not None
        assert (entropy_T > 0).all()


@pytest.mark.parametrize("share_prompt", [True, False])
def test_a_plan_covers_every_group_once_within_its_budget(groups: list[Group], share_prompt: bool) -> None:
    plan = batching.plan(groups, 60, share_prompt)
    assert sorted(i for part in plan for i in part) == list(range(len(groups)))
    for part in plan:
        batch = batching.collate(groups, part, share_prompt=share_prompt, device="cpu")
        assert len(part) == 1 or batch.tokens_BL.numel() <= 60


def gradients(path: str, groups: list[Group], **changes: Any) -> dict[str, Tensor]:
    """Gradients of one optimizer step, before clipping."""
    model = policy(path)
    config = settings(max_grad_norm=1e9, **changes)
    trainer = Trainer(config, model, optimizer := Optimizer(config, model.master))
    kept: dict[str, Tensor] = {}

    def keep(_: int) -> tuple[float, bool]:
        kept.update({k: p.grad.clone() for k, p in model.master.items() if p.grad is not None})
        return 1.0, False

    optimizer.step = keep  # type: ignore[method-assign]
    list(trainer.train(groups, makers.V0))
    return kept


@pytest.mark.parametrize("changes", [{"micro_batch_tokens": 1}, {"share_prompt": False}, {"target": "softmean"}])
def test_gradients_do_not_depend_on_the_layout(path: str, groups: list[Group], changes: dict[str, Any]) -> None:
    base = {k: v for k, v in changes.items() if k == "target"}
    one = gradients(path, groups, **(base | {"micro_batch_tokens": 10_000}))
    other = gradients(path, groups, **changes)
    assert one.keys() == other.keys()
    for name, expected in one.items():
        assert float((other[name] - expected).norm() / expected.norm()) < 1e-4, name


def test_the_first_mini_batch_as_its_own_anchor_equals_an_explicit_recompute(path: str, groups: list[Group]) -> None:
    # Given one trainer with the shortcut, and one whose anchor is computed beforehand
    def step(explicit: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
        model = policy(path)
        trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
        anchors = [trainer._score(b)[0] for b in trainer._micro_batches(groups)] if explicit else None
        record = trainer._optimizer_step(groups, anchors, makers.V0, 1)
        return record, {k: p.detach().clone() for k, p in model.master.items()}

    (short, weights), (long, expected) = step(False), step(True)
    # Then loss, norm and updated weights agree
    assert short["loss"] == pytest.approx(long["loss"], rel=1e-5)
    assert short["grad_norm"] == pytest.approx(long["grad_norm"], rel=1e-4)
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[name], atol=2e-5), name


def test_later_mini_batches_regress_against_the_weights_of_the_batchs_arrival(path: str, groups: list[Group]) -> None:
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


def test_training_raises_the_probability_of_rewarded_completions(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(lr=3e-3), model, Optimizer(settings(lr=3e-3), model.master))

    def gap() -> float:
        total = 0.0
        for g in groups:
            sums = torch.stack([t.sum() for t in one_by_one(model, g)]).detach()
            total += float(sums[int(np.argmax(g.rewards))] - sums[int(np.argmin(g.rewards))])
        return total

    start = gap()
    version = makers.V0
    for _ in range(5):
        record = list(trainer.train(groups, version))[-1]
        version = Version(epoch=version.epoch, n=record["step"])
    assert gap() > start + 1.0


def test_every_metric_is_documented_and_staleness_is_counted(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    later = Version(epoch=makers.V0.epoch, n=2)
    record = next(iter(trainer.train(groups, later)))
    assert set(record) <= set(METRICS)
    assert (record["staleness_mean"], record["staleness_max"], record["mismatch"]) == (2, 2, None)
    foreign = next(iter(trainer.train(groups, Version(epoch="another life", n=2))))
    assert (foreign["staleness_mean"], foreign["foreign_epoch_groups"]) == (None, 6)


def test_mismatch_is_the_mean_gap_of_completions_at_this_version(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    gaps = [
        (a.detach() - torch.tensor(c.behavior_logprobs)).abs()
        for g in groups
        for a, c in zip(one_by_one(model, g), g.completions, strict=True)
    ]
    assert trainer.mismatch(groups, makers.V0) == pytest.approx(float(torch.cat(gaps).mean()), rel=1e-4)
    assert trainer.mismatch(groups, Version(epoch="e1", n=1)) is None


def test_a_step_without_any_signal_goes_on_by_momentum(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    list(trainer.train(groups, makers.V0))
    before = {k: p.detach().clone() for k, p in model.master.items()}
    for group in groups:
        group.rewards[:] = 1.0
    record = next(iter(trainer.train(groups, makers.V0)))
    assert (record["no_signal_share"], record["grad_norm"], record["loss"]) == (1.0, 0.0, 0.0)
    assert any(not torch.equal(p, before[k]) for k, p in model.master.items())


def test_a_gradient_that_is_not_finite_moves_nothing(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings(), model.master))
    groups[0].rewards[0] = np.inf
    before = {k: p.detach().clone() for k, p in model.master.items()}
    with pytest.raises(FloatingPointError, match="step 1"):
        list(trainer.train(groups, makers.V0))
    assert all(torch.equal(p, before[k]) for k, p in model.master.items())
