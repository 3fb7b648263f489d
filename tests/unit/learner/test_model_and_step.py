"""A tiny Llama in float32: layouts, micro-batches and mini-batches must not change the
mathematics.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sppo import kernels
from sppo.config import LearnerConfig, RunConfig
from sppo.errors import ConfigError, SppoError
from sppo.learner import batching, objective
from sppo.learner.model import Logprobs, Policy
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
    made[3] = replace(
        made[3], rewards=np.full(len(made[3].completions), 0.5, np.float32)
    )  # without a signal
    return made


def compared(groups: list[Group], seed: int = 0) -> list[Group]:
    """The same groups with random preferences instead of rewards."""
    rng = np.random.default_rng(seed)
    made = []
    for group in groups:
        k = len(group.completions)
        upper = np.triu(rng.random((k, k)), 1)
        table = upper + np.tril(1 - upper.T, -1) + np.eye(k) / 2
        made.append(replace(group, rewards=None, preferences=table.astype(np.float32)))
    return made


def on_policy(model: Policy, groups: list[Group]) -> list[Group]:
    """The same groups as if `model` had sampled them: every importance ratio is 1."""
    made = []
    for group in groups:
        logprobs = [t.detach().numpy() for t in one_by_one(model, group)]
        completions = [
            replace(c, behavior_logprobs=t)
            for c, t in zip(group.completions, logprobs, strict=True)
        ]
        made.append(replace(group, completions=tuple(completions)))
    return made


def test_kernels_that_do_not_run_here_are_refused_with_the_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    run = RunConfig(learner=LearnerConfig(kernels="triton"))
    with pytest.raises(
        ConfigError, match=r"learner.kernels: backend 'triton' .* on cpu: .* use 'auto' or 'torch'"
    ):
        Logprobs.of(run, "cpu")
    with pytest.raises(ValueError, match="kernels = 'triton' needs a GPU, not device = 'cpu'"):
        LearnerConfig(kernels="triton", device="cpu")


def policy(path: str) -> Policy:
    return Policy(
        path, device="cpu", logprobs=Logprobs(temperature=TEMPERATURE), compute=torch.float32
    )


def settings(**changes: Any) -> RunConfig:
    base = {"groups_per_step": 6, "lr": 1e-3, "micro_batch_tokens": 64}
    return makers.training(**base | changes)


def one_by_one(model: Policy, group: Group) -> list[Tensor]:
    """Log-probs of each completion by a plain forward of prompt and completion."""
    results = []
    for completion in group.completions:
        tokens = torch.tensor([*group.prompt_ids, *completion.token_ids], dtype=torch.int64)[None]
        logits_TV = (
            model.module(input_ids=tokens).logits[0, len(group.prompt_ids) - 1 : -1] / TEMPERATURE
        )
        target_T = tokens[0, len(group.prompt_ids) :]
        results.append(logits_TV.log_softmax(-1).gather(-1, target_T[:, None])[:, 0])
    return results


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Granite", {"logits_scaling": 8.0}),
        ("Cohere", {"logit_scale": 0.25}),
        ("Gemma2", {"head_dim": 8}),
    ],
)
def test_what_a_family_does_to_its_logits_is_done(
    family: str, options: dict[str, Any], groups: list[Group], tmp_path: Path
) -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{family}Config")(**sizes, **heads, **options)
    made = getattr(transformers, f"{family}ForCausalLM")(config)
    made.get_output_embeddings().weight.data *= 50  # logits that a soft cap of 30 changes
    made.save_pretrained(str(tmp_path))
    model = policy(str(tmp_path))
    batch = batching.collate(groups, [0], share_prompt=False, device="cpu")
    expected_T = torch.cat(one_by_one(model, groups[0]))
    assert torch.allclose(model.logprobs(batch)[0], expected_T, atol=1e-4)


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
def test_a_plan_covers_every_group_once_within_its_budget(
    groups: list[Group], share_prompt: bool
) -> None:
    plan = batching.plan(groups, 60, share_prompt)
    assert sorted(i for part in plan for i in part) == list(range(len(groups)))
    for part in plan:
        batch = batching.collate(groups, part, share_prompt=share_prompt, device="cpu")
        assert len(part) == 1 or batch.tokens_BL.numel() <= 60


def gradients(path: str, groups: list[Group], **changes: Any) -> dict[str, Tensor]:
    """Gradients of one optimizer step, before clipping."""
    model = policy(path)
    config = settings(max_grad_norm=1e9, **changes)
    trainer = Trainer(config, model, optimizer := Optimizer(config.optimizer, model.master))
    kept: dict[str, Tensor] = {}

    def keep(_: int) -> tuple[float, bool]:
        kept.update({k: p.grad.clone() for k, p in model.master.items() if p.grad is not None})
        return 1.0, False

    optimizer.step = keep  # type: ignore[method-assign]
    list(trainer.train(groups, makers.V0))
    return kept


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
        trainer = Trainer(config, model, Optimizer(config.optimizer, model.master))
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


def test_later_mini_batches_regress_against_the_weights_of_the_batchs_arrival(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    config = settings(mini_batches=3, steps=3)
    trainer = Trainer(config, model, Optimizer(config.optimizer, model.master))
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
    trainer = Trainer(
        settings(lr=3e-3), model, Optimizer(settings(lr=3e-3).optimizer, model.master)
    )

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


def test_every_metric_is_documented_and_staleness_is_counted(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings().optimizer, model.master))
    later = Version(epoch=makers.V0.epoch, n=2)
    record = next(iter(trainer.train(groups, later)))
    assert set(record) <= set(METRICS)
    assert (record["staleness_mean"], record["staleness_max"], record["mismatch"]) == (2, 2, None)
    foreign = next(iter(trainer.train(groups, Version(epoch="another life", n=2))))
    assert (foreign["staleness_mean"], foreign["foreign_epoch_groups"]) == (None, 6)


def test_mismatch_is_the_mean_gap_of_completions_at_this_version(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings().optimizer, model.master))
    gaps = [
        (a.detach() - torch.tensor(c.behavior_logprobs)).abs()
        for g in groups
        for a, c in zip(one_by_one(model, g), g.completions, strict=True)
    ]
    assert trainer.mismatch(groups, makers.V0).mean == pytest.approx(
        float(torch.cat(gaps).mean()), rel=1e-4
    )
    assert trainer.mismatch(groups, Version(epoch="e1", n=1)).mean is None


def test_a_step_without_any_signal_goes_on_by_momentum(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings().optimizer, model.master))
    list(trainer.train(groups, makers.V0))
    before = {k: p.detach().clone() for k, p in model.master.items()}
    groups = [replace(g, rewards=np.ones(len(g.completions), np.float32)) for g in groups]
    record = next(iter(trainer.train(groups, makers.V0)))
    assert (record["no_signal_share"], record["grad_norm"], record["loss"]) == (1.0, 0.0, 0.0)
    assert any(not torch.equal(p, before[k]) for k, p in model.master.items())


def test_a_gradient_that_is_not_finite_moves_nothing(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings().optimizer, model.master))
    groups[0] = replace(
        groups[0], rewards=np.array([np.inf] + [0.0] * (len(groups[0].completions) - 1), np.float32)
    )
    before = {k: p.detach().clone() for k, p in model.master.items()}
    with pytest.raises(FloatingPointError, match="step 1"):
        list(trainer.train(groups, makers.V0))
    assert all(torch.equal(p, before[k]) for k, p in model.master.items())


def moved(model: Policy, amount: float = 0.02) -> None:
    """Another policy than the one loaded."""
    torch.manual_seed(7)
    for parameter in model.master.values():
        parameter.data.add_(amount * torch.randn_like(parameter))
    model.refresh()


def take(
    path: str, groups: list[Group], *, move: bool = False, **changes: Any
) -> tuple[Policy, dict[str, Any]]:
    """One optimizer step at n = 1 of a policy whose snapshots hold the weights that it was loaded
    with.
    """
    model, config = policy(path), settings(**changes)
    for snapshot in ("anchor", "reference"):
        model.keep(snapshot, device="cpu")  # type: ignore[arg-type]
    if move:
        moved(model)
    now = Version(epoch=makers.V0.epoch, n=1)
    published = makers.V0 if config.objective.anchor == "iteration" else now
    records = list(
        Trainer(config, model, Optimizer(config.optimizer, model.master)).train(
            groups, now, published
        )
    )
    return model, records[0]


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


def test_computing_with_a_snapshot_leaves_the_weights_as_they_were(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    model.keep("anchor", device="cpu")
    moved(model)
    before = {k: p.clone() for k, p in model.weights()}
    with model.using("anchor"):
        assert any(not torch.equal(p, before[k]) for k, p in model.weights())
    assert all(torch.equal(p, before[k]) for k, p in model.weights())


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


def test_a_batch_softmean_is_of_the_whole_batch_whatever_the_mini_batch(
    path: str, groups: list[Group]
) -> None:
    model, config = (
        policy(path),
        settings(mini_batches=3, steps=3, target="batch_softmean", weight="none", eta=2.0),
    )
    records = list(
        Trainer(config, model, Optimizer(config.optimizer, model.master)).train(groups, makers.V0)
    )
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


def test_a_batch_of_rewards_and_preferences_is_refused(path: str, groups: list[Group]) -> None:
    with pytest.raises(
        SppoError, match=r"train-000000001 has rewards.*train-000000000.*objective\.link"
    ):
        take(path, [*compared(groups[:1]), *groups[1:]])


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
    trainer = Trainer(config, model, Optimizer(config.optimizer, model.master))
    entropies = [next(iter(trainer.train(groups, makers.V0)))["entropy"] for _ in range(3)]
    assert entropies[0] < entropies[1] < entropies[2]


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


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_the_objective_of_these_log_probs(
    path: str, groups: list[Group], case: str
) -> None:
    """Weights from stale completions reach loss and targets, put together here from log-probs one
    by one.
    """
    changes: dict[str, Any] = dict(CASES[case])
    then, now = policy(path), policy(path)
    moved(now)
    rng = np.random.default_rng(1)
    groups = (
        compared(on_policy(then, groups))
        if changes.pop("compared", False)
        else on_policy(then, groups)
    )
    groups = [  # sampled by something near the snapshot: some weights meet their caps and some do not
        replace(
            g,
            completions=tuple(
                replace(
                    c,
                    behavior_logprobs=(c.behavior_logprobs + rng.normal(0, 0.2)).astype(np.float32),
                )
                for c in g.completions
            ),
        )
        for g in groups
    ]
    config = settings(anchor="iteration", **changes)
    _, record = take(path, groups, move=True, anchor="iteration", **changes)

    sizes = [len(g.completions) for g in groups]
    ids_N = torch.arange(len(groups)).repeat_interleave(torch.tensor(sizes))
    logprob, anchor = (
        [t.detach() for g in groups for t in one_by_one(model, g)] for model in (now, then)
    )
    behavior = [torch.from_numpy(c.behavior_logprobs) for g in groups for c in g.completions]
    length_N = torch.tensor([len(t) for t in logprob])
    cu_seqlens = torch.nn.functional.pad(length_N.cumsum(0), (1, 0))
    tokens = {
        "logprob_T": torch.cat(logprob),
        "anchor_T": torch.cat(anchor),
        "behavior_T": torch.cat(behavior),
    }
    log_rho_N = torch.stack([(a - b).sum() for a, b in zip(anchor, behavior, strict=True)])
    cap = config.objective.weight_cap or None
    weight_N, clipped_N = kernels.sequence_weights(
        config.objective.weight, log_rho_N, length_N, cap=cap
    )
    assert config.objective.weight == "none" or 0 < clipped_N.double().mean() < 1
    rewards_N = (
        None if groups[0].rewards is None else torch.cat([torch.tensor(g.rewards) for g in groups])
    )
    tables = None if rewards_N is not None else [torch.tensor(g.preferences) for g in groups]
    if config.objective.link == "bradley-terry":
        assert rewards_N is not None
        rewards_N, tables = (
            None,
            objective.bradley_terry(
                rewards_N, ids_N, temperature=config.objective.link_temperature
            ),
        )
    scored: dict[str, Any] = {"group_ids_N": ids_N, "rewards_N": rewards_N, "preferences": tables}
    score_N = objective.compute_scores(**scored)
    keep_N = objective.select_completions(config.objective.select, score_N, ids_N)
    if config.objective.label != "group":
        target_N = objective.pair_targets(
            config.objective.label,
            kept_N=keep_N,
            scores_N=score_N,
            group_ids_N=ids_N,
            preferences=tables,
        )
    elif config.objective.target == "centered":
        target_N = score_N
    else:
        target_N = objective.compute_targets(
            config.objective.target, eta=config.objective.eta, weights_N=weight_N, **scored
        )
    keep_T = keep_N.repeat_interleave(length_N)
    kept = [int(k.sum()) for k in keep_N.split(sizes)]
    loss, expected = kernels.sppo_loss(
        **{name: values_T[keep_T] for name, values_T in tokens.items()},
        mask_T=None,
        cu_seqlens=torch.nn.functional.pad(cu_seqlens.diff()[keep_N].cumsum(0), (1, 0)),
        targets_N=target_N[keep_N],
        eta=config.objective.eta,
        group_offsets=torch.tensor([0, *np.cumsum(kept)]),
        centered=config.objective.target == "centered",
        weight_mode=config.objective.weight,
        cap=cap,
        length_normalized=config.objective.length_normalize,
    )
    assert record["loss"] == pytest.approx(float(loss), rel=1e-4)
    assert record["target_mean"] == pytest.approx(float(expected.target_N.mean()), abs=1e-5)
    assert record["residual_std"] == pytest.approx(float(expected.residual_N.std()), rel=1e-4)
    assert record["weight_mean"] == pytest.approx(float(expected.weight_N.mean()), rel=1e-4)


def test_the_mismatch_at_a_snapshot_is_that_of_its_weights(path: str, groups: list[Group]) -> None:
    model = policy(path)
    trainer = Trainer(settings(), model, Optimizer(settings().optimizer, model.master))
    before = trainer.mismatch(groups, makers.V0).mean
    model.keep("probe", device="cpu")
    moved(model)
    assert trainer.mismatch(groups, makers.V0, "probe").mean == before
    assert trainer.mismatch(groups, makers.V0).mean != pytest.approx(before, rel=1e-3)


def without_signal(group: Group) -> Group:
    return replace(group, rewards=np.full(len(group.completions), 0.5, np.float32))


@pytest.mark.parametrize("changes", [{}, {"target": "softmean"}, {"select": "best_worst"}])
def test_groups_without_a_gradient_stay_out_of_the_model_and_change_nothing(
    path: str, groups: list[Group], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a batch of which four groups in six have no signal
    groups = [g if i in (1, 4) else without_signal(g) for i, g in enumerate(groups)]
    fed: list[int] = []

    def step(*, skip: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if not skip:
            monkeypatch.setattr(Trainer, "_with_a_gradient", lambda self, items, *_: items)
        model, record = take(path, groups, **changes)
        monkeypatch.undo()
        return record, {name: p.detach().clone() for name, p in model.master.items()}

    plain = Policy.logprobs

    def counted(self: Policy, batch: batching.MicroBatch, **options: Any) -> Any:
        fed.append(len(batch.groups))
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


def test_the_entropy_of_what_was_not_measured_is_what_the_engine_said(
    path: str, groups: list[Group]
) -> None:
    # Given groups without a signal that this policy sampled, so that −log μ is an unbiased estimate
    quiet = on_policy(policy(path), [without_signal(g) for g in groups])
    record = take(path, quiet)[1]
    # Then the mean over all tokens joins the entropy of the one measured with −log μ of the others
    assert record["measured_share"] < 0.5
    said = np.concatenate([c.behavior_logprobs for g in quiet for c in g.completions])
    assert abs(record["entropy"] + said.mean()) < 1.0
