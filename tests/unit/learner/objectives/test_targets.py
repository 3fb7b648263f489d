"""The objective's functions against closed forms, a restatement in plain Python, and finite
differences.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.kernels import (
    WEIGHTS,
    LossStats,
    effective_sample_size,
    segment_sum,
    sequence_log_ratios,
    sequence_weights,
    sppo_loss,
)
from sppo.learner.objectives.targets import (
    bradley_terry,
    compute_scores,
    compute_targets,
    group_mean,
    normalized_weights,
    pair_targets,
    select_completions,
    win_rates,
)
from sppo.learner.objectives.terms import kl_k3

LENGTHS = [3, 1, 4, 2, 5]
GROUPS = torch.tensor([4, 4, 1, 1, 1])  # unequal sizes, ids in no order
OFFSETS = torch.tensor([0, 2, 5])
CU_SEQLENS = torch.tensor([0, *itertools.accumulate(LENGTHS)])
MODES = [(w, t) for w in WEIGHTS for t in ("centered", "softmean", "batch_softmean", "half")]


def tokens(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Log-probs whose weights are partly clipped and partly not, with one token masked."""
    torch.manual_seed(seed)
    anchor_T = -torch.rand(sum(LENGTHS), dtype=dtype) * 3
    mask_T = torch.ones(sum(LENGTHS), dtype=dtype)
    mask_T[5] = 0
    return {
        "logprob_T": anchor_T + 0.3 * torch.randn(sum(LENGTHS), dtype=dtype),
        "anchor_T": anchor_T,
        "behavior_T": anchor_T + 0.3 * torch.randn(sum(LENGTHS), dtype=dtype),
        "mask_T": mask_T,
        "cu_seqlens": CU_SEQLENS,
    }


def matrices(seed: int = 0) -> list[Tensor]:
    """Random preferences for both groups: intransitive in general."""
    torch.manual_seed(100 + seed)
    made = []
    for k in (2, 3):
        upper = torch.rand(k, k, dtype=torch.float64).triu(1)
        made.append(upper + (1 - upper.T).tril(-1) + torch.eye(k, dtype=torch.float64) / 2)
    return made


def loss(
    target: str,
    values: dict[str, Any],
    *,
    seed: int = 0,
    eta: float = 1.5,
    weight: str = "none",
    **options: Any,
) -> tuple[Tensor, LossStats]:
    """Weights, then targets, then the loss, as the learner puts them together."""
    _, log_rho_N, length_N = sequence_log_ratios(**values)
    weight_N, _ = sequence_weights(weight, log_rho_N, length_N)
    preferences = matrices(seed)
    common = {"group_ids_N": GROUPS, "preferences": preferences, "weights_N": weight_N}
    target_N = (
        compute_scores(**common)
        if target == "centered"
        else compute_targets(target, eta=eta, **common)
    )
    settings = {
        "eta": eta,
        "group_offsets": OFFSETS,
        "centered": target == "centered",
        "weight_mode": weight,
    }
    return sppo_loss(**values, targets_N=target_N, **(settings | options))


def by_hand(target: str, values: dict[str, Any], weight: str, eta: float, seed: int) -> float:
    """docs/objective.md, completion by completion in plain Python."""
    n = range(len(LENGTHS))
    spans = [range(int(CU_SEQLENS[i]), int(CU_SEQLENS[i + 1])) for i in n]
    v = {k: t.tolist() for k, t in values.items()}
    delta = [
        sum(v["mask_T"][t] * (v["logprob_T"][t] - v["anchor_T"][t]) for t in spans[i]) for i in n
    ]
    log_rho = [
        sum(v["mask_T"][t] * (v["anchor_T"][t] - v["behavior_T"][t]) for t in spans[i]) for i in n
    ]
    length = [sum(v["mask_T"][t] for t in spans[i]) for i in n]
    per_token = [math.exp(log_rho[i] / length[i]) for i in n]
    w = {
        "none": [1.0] * len(LENGTHS),
        "geometric": [min(max(r, 1 / 1.2), 1.2) for r in per_token],
        "sequence": [min(math.exp(r), 2.0) for r in log_rho],
        "masked": [float(1 / 1.2 <= r <= 1.2) for r in per_token],
    }[weight]
    mates = [[j for j in n if GROUPS[j] == GROUPS[i]] for i in n]

    def share(i: int) -> list[float]:
        total = sum(w[j] for j in mates[i])
        return [w[j] / total if total else 1 / len(mates[i]) for j in mates[i]]

    def rate(i: int, weighted: bool) -> float:
        g, row = (0, i) if i < 2 else (1, i - 2)
        shares = share(i) if weighted else [1 / len(mates[i])] * len(mates[i])
        return float(
            sum(q * p for q, p in zip(shares, matrices(seed)[g][row].tolist(), strict=True))
        )

    s = [rate(i, target != "batch_softmean") for i in n]
    own = [delta[i] - eta * s[i] for i in n]
    total = 0.0
    for i in n:
        heard = [own[j] for j in mates[i] if w[j]]  # `masked` rejects with weight 0
        log_z = {
            "centered": sum(heard) / len(heard) if heard else 0.0,
            "half": -eta / 2,
            "softmean": -math.log(
                sum(q * math.exp(eta * s[j]) for q, j in zip(share(i), mates[i], strict=True))
            ),
            "batch_softmean": -math.log(sum(math.exp(eta * s[j]) for j in n) / len(LENGTHS)),
        }[target]
        total += w[i] * (own[i] - log_z) ** 2 / len(LENGTHS)
    return total


@pytest.mark.parametrize(("weight", "target"), MODES)
@pytest.mark.parametrize("eta", [0.3, 20.0])
def test_the_loss_is_the_formula(weight: str, target: str, eta: float) -> None:
    for seed in range(4):
        values = tokens(seed)
        got = float(loss(target, values, seed=seed, eta=eta, weight=weight)[0])
        assert got == pytest.approx(by_hand(target, values, weight, eta, seed), rel=1e-12)


@pytest.mark.parametrize(("weight", "target"), MODES)
@pytest.mark.parametrize("length_normalized", [False, True])
def test_the_gradient_agrees_with_finite_differences(
    weight: str, target: str, length_normalized: bool
) -> None:
    values = tokens()
    logprob_T = values["logprob_T"].clone().requires_grad_()
    options: dict[str, Any] = {"weight": weight, "length_normalized": length_normalized}
    loss(target, values | {"logprob_T": logprob_T}, **options)[0].backward()
    assert logprob_T.grad is not None
    fixed = loss(target, values, **options)[1]
    scale_N = 1 / fixed.length_N if length_normalized else torch.ones_like(fixed.length_N)
    step = 1e-5

    def held(moved_T: Tensor) -> float:
        if target != "centered":  # weights do not depend on what moves
            return float(loss(target, values | {"logprob_T": moved_T}, **options)[0])
        change_N = segment_sum(
            values["mask_T"] * (moved_T - values["logprob_T"]), CU_SEQLENS
        )  # the mean is held
        return float(
            (fixed.weight_N * (fixed.residual_N + scale_N * change_N) ** 2).sum() / len(LENGTHS)
        )

    numeric_T = torch.zeros_like(logprob_T)
    for t in range(len(logprob_T)):
        bump_T = torch.zeros_like(logprob_T)
        bump_T[t] = step
        numeric_T[t] = (held(values["logprob_T"] + bump_T) - held(values["logprob_T"] - bump_T)) / (
            2 * step
        )
    error = float((logprob_T.grad - numeric_T).norm() / numeric_T.norm())
    assert error < 1e-6


def test_k3_has_the_gradient_of_its_formula_and_is_never_negative() -> None:
    logprob_T = torch.tensor([-1.0, -0.2, -3.0], dtype=torch.float64, requires_grad=True)
    reference_T = torch.tensor([-0.5, -0.2, -4.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(kl_k3, (logprob_T, reference_T))
    divergence_T = kl_k3(logprob_T.detach(), reference_T)
    assert (divergence_T >= 0).all()
    assert divergence_T[1] == 0


def test_on_its_own_anchor_the_gradient_is_a_policy_gradient_with_a_baseline() -> None:
    values = tokens() | {"mask_T": None}
    values["logprob_T"] = values["anchor_T"].clone().requires_grad_()
    score_N = torch.rand(len(LENGTHS), dtype=torch.float64)
    total, stats = sppo_loss(
        **values, targets_N=score_N, eta=2.0, group_offsets=OFFSETS, centered=True
    )
    total.backward()
    advantage_N = score_N - group_mean(score_N, GROUPS)
    expected_T = torch.repeat_interleave(
        -2 * 2.0 * advantage_N / len(LENGTHS), torch.tensor(LENGTHS)
    )
    assert torch.allclose(values["logprob_T"].grad, expected_T)
    assert torch.allclose(stats.target_N, advantage_N)


@pytest.mark.parametrize("target", ["centered", "softmean"])
def test_an_offset_of_all_scores_of_a_group_changes_nothing(target: str) -> None:
    values, reward_N = tokens(), torch.rand(len(LENGTHS), dtype=torch.float64)

    def total(rewards_N: Tensor) -> float:
        given = {"group_ids_N": GROUPS, "rewards_N": rewards_N}
        target_N = rewards_N if target == "centered" else compute_targets(target, eta=1.0, **given)
        options = {"eta": 1.0, "group_offsets": OFFSETS, "centered": target == "centered"}
        return float(sppo_loss(**values, targets_N=target_N, **options)[0])

    assert total(reward_N) == pytest.approx(total(reward_N + torch.where(GROUPS == 4, 5.0, -2.0)))


def test_softmean_does_not_overflow_or_vanish_at_the_papers_eta() -> None:
    rewards_N = torch.tensor([0.0, 0.5, 1e-3, 2e-3, 1.0])
    target_N = compute_targets("softmean", eta=1e3, group_ids_N=GROUPS, rewards_N=rewards_N)
    assert torch.isfinite(target_N).all()
    assert float(target_N[1]) == pytest.approx(
        math.log(2) / 1e3, rel=1e-3
    )  # the only one that counts in its group


def test_a_completion_of_weight_zero_takes_no_part_in_the_soft_mean() -> None:
    given = {"eta": 1.0, "group_ids_N": torch.zeros(3, dtype=torch.int64)}
    masked = compute_targets(
        "softmean",
        rewards_N=torch.tensor([1.0, 0.0, 900.0]),
        weights_N=torch.tensor([1.0, 1.0, 0.0]),
        **given,
    )
    alone = compute_targets(
        "softmean",
        eta=1.0,
        group_ids_N=given["group_ids_N"][:2],
        rewards_N=torch.tensor([1.0, 0.0]),
    )
    assert torch.allclose(masked[:2], alone)
    assert torch.isfinite(masked).all()


def test_a_group_whose_weights_are_all_zero_adds_nothing_and_stays_finite() -> None:
    values = tokens()
    values["behavior_T"] = values["anchor_T"].clone()
    values["behavior_T"][:4] -= 5.0  # the first group is far from its anchor
    total, stats = loss("softmean", values, weight="masked")
    assert stats.weight_N.tolist() == [0, 0, 1, 1, 1]
    assert math.isfinite(float(total))
    assert float(total) == pytest.approx(float((stats.residual_N[2:] ** 2).sum()) / 5)
    assert normalized_weights(stats.weight_N, GROUPS).tolist() == pytest.approx(
        [0.5, 0.5, 1 / 3, 1 / 3, 1 / 3]
    )


LOG_RHO = torch.tensor([0.0, 10.0, -10.0, 0.1, 800.0])
TOKENS = torch.tensor([4, 1, 1, 2, 1])


@pytest.mark.parametrize(
    ("mode", "weights", "clipped"),
    [
        ("none", [1, 1, 1, 1, 1], [False] * 5),
        ("geometric", [1, 1.2, 1 / 1.2, math.exp(0.05), 1.2], [False, True, True, False, True]),
        ("sequence", [1, 2, math.exp(-10), math.exp(0.1), 2], [False, True, False, False, True]),
        ("masked", [1, 0, 0, 1, 0], [False, True, True, False, True]),
    ],
)
def test_weights(mode: str, weights: list[float], clipped: list[bool]) -> None:
    weight_N, clipped_N = sequence_weights(mode, LOG_RHO, TOKENS)
    assert weight_N.tolist() == pytest.approx(weights)
    assert clipped_N.tolist() == clipped
    assert effective_sample_size(weight_N) == pytest.approx(
        sum(weights) ** 2 / 5 / sum(w * w for w in weights)
    )


def test_effective_sample_size() -> None:
    assert effective_sample_size(torch.ones(7)) == pytest.approx(1.0)
    assert effective_sample_size(torch.tensor([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert effective_sample_size(torch.zeros(3)) == 0.0


def test_win_rates_weigh_the_opponents_and_count_the_completion_itself() -> None:
    rates_N = win_rates(
        matrices(), GROUPS, torch.tensor([1.0, 3.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    )
    first, second = matrices()
    assert float(rates_N[0]) == pytest.approx(0.25 * 0.5 + 0.75 * float(first[0, 1]))
    assert float(rates_N[4]) == pytest.approx(0.5 * float(second[2, 0]) + 0.5 * float(second[2, 1]))


def test_groups_may_be_interleaved() -> None:
    order = torch.tensor([2, 0, 3, 1, 4])
    rewards_N = torch.rand(5, dtype=torch.float64)
    for mode in ("softmean", "batch_softmean"):
        straight = compute_targets(mode, eta=2.0, group_ids_N=GROUPS, rewards_N=rewards_N)
        shuffled = compute_targets(
            mode, eta=2.0, group_ids_N=GROUPS[order], rewards_N=rewards_N[order]
        )
        assert torch.allclose(shuffled, straight[order])
    linked = bradley_terry(
        rewards_N[order], GROUPS[order]
    )  # the group of completion 2 appears first now
    assert torch.allclose(
        win_rates(linked, GROUPS[order]), win_rates(bradley_terry(rewards_N, GROUPS), GROUPS)[order]
    )


def test_bradley_terry_is_a_logistic_link_that_the_temperature_flattens() -> None:
    rewards_N = torch.tensor([2.0, 0.5, 1.0, 1.0, 4.0])
    first, second = bradley_terry(rewards_N, GROUPS, temperature=2.0)
    assert float(first[0, 1]) == pytest.approx(1 / (1 + math.exp(-(2.0 - 0.5) / 2)))
    assert torch.allclose(second + second.T, torch.ones(3, 3))
    assert torch.equal(second.diagonal(), torch.full((3,), 0.5))


def test_selection_keeps_the_first_best_and_the_first_worst() -> None:
    ids_N = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    scores_N = torch.tensor([0.1, 0.9, 0.1, 0.9, 7.0, 7.0, 7.0])
    assert select_completions("best_worst", scores_N, ids_N).tolist() == [
        *[True, True, False, False],
        *[True, False, False],  # all tie: best and worst are one
    ]
    assert select_completions("all", scores_N, ids_N).all()


def test_labels_of_a_pair() -> None:
    scores_N = torch.tensor([0.2, 0.9, 0.1, 0.5, 0.5])
    ids_N = torch.tensor([0, 0, 0, 1, 1])
    kept_N = select_completions("best_worst", scores_N, ids_N)
    preferences = [
        torch.tensor([[0.5, 0.3, 0.6], [0.7, 0.5, 0.8], [0.4, 0.2, 0.5]]),
        torch.full((2, 2), 0.5),
    ]
    given: dict[str, Any] = {
        "kept_N": kept_N,
        "scores_N": scores_N,
        "group_ids_N": ids_N,
        "preferences": preferences,
    }
    assert pair_targets("pair", **given).tolist() == pytest.approx([0, 0.3, -0.3, 0, 0])
    assert pair_targets("hard", **given).tolist() == [0, 0.5, -0.5, 0, 0]  # a tie has no winner
    with pytest.raises(ValueError, match="best_worst"):
        pair_targets("hard", **(given | {"kept_N": torch.ones(5, dtype=torch.bool)}))


def test_micro_batches_add_up_to_the_whole() -> None:
    values, score_N = tokens(), torch.rand(5, dtype=torch.float64)
    options: dict[str, Any] = {
        "eta": 1.0,
        "centered": True,
        "weight_mode": "geometric",
        "normalizer": 5,
    }
    whole = float(sppo_loss(**values, targets_N=score_N, group_offsets=OFFSETS, **options)[0])
    first = {k: v[:4] for k, v in values.items()} | {"cu_seqlens": CU_SEQLENS[:3]}
    rest = {k: v[4:] for k, v in values.items()} | {"cu_seqlens": CU_SEQLENS[2:] - 4}
    one = sppo_loss(**first, targets_N=score_N[:2], group_offsets=OFFSETS[:2], **options)[0]
    two = sppo_loss(**rest, targets_N=score_N[2:], group_offsets=OFFSETS[1:] - 2, **options)[0]
    assert float(one + two) == pytest.approx(whole)


def test_without_offsets_every_completion_is_its_own_group() -> None:
    total, stats = sppo_loss(
        **tokens(), targets_N=torch.rand(5, dtype=torch.float64), eta=1.0, centered=True
    )
    assert float(total) == 0
    assert stats.target_N.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: compute_targets("nope", eta=1, group_ids_N=GROUPS, rewards_N=torch.ones(5)),
            "nope.*softmean",
        ),
        (
            lambda: compute_targets("half", eta=1, group_ids_N=GROUPS, rewards_N=torch.ones(5)),
            "preferences",
        ),
        (
            lambda: compute_targets("softmean", eta=1, group_ids_N=GROUPS),
            "either rewards or preferences",
        ),
        (lambda: win_rates(matrices()[:1], GROUPS), "1 matrices for 2 groups"),
        (lambda: win_rates(matrices()[::-1], GROUPS), r"\(3, 3\) for a group of 2"),
        (lambda: sequence_weights("nope", LOG_RHO, TOKENS), "nope.*geometric"),
        (lambda: sequence_weights("masked", LOG_RHO, TOKENS, cap=1.0), "greater than 1"),
        (lambda: select_completions("nope", torch.ones(5), GROUPS), "nope.*best_worst"),
    ],
)
def test_a_wrong_argument_is_named(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_the_worked_example_of_the_documentation() -> None:
    ids_N, rewards_N = (
        torch.zeros(3, dtype=torch.int64),
        torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64),
    )
    given: dict[str, Any] = {"eta": 1.0, "group_ids_N": ids_N}
    soft = compute_targets("softmean", rewards_N=rewards_N, **given)
    half = compute_targets("half", preferences=bradley_terry(rewards_N, ids_N), **given)
    assert soft.tolist() == pytest.approx([0.5472, -0.4528, -0.4528], abs=5e-5)
    assert half.tolist() == pytest.approx([0.1540, -0.0770, -0.0770], abs=5e-5)
    delta_T, zero_T = (
        torch.tensor([0.3, -0.1, -0.1], dtype=torch.float64),
        torch.zeros(3, dtype=torch.float64),
    )
    offsets = torch.arange(4)
    total, stats = sppo_loss(delta_T, zero_T, zero_T, None, offsets, soft, eta=1.0)
    assert stats.residual_N.tolist() == pytest.approx([-0.2472, 0.3528, 0.3528], abs=5e-5)
    assert float(total) == pytest.approx(0.1034, abs=5e-5)
    whole = torch.tensor([0, 3])
    total, stats = sppo_loss(
        delta_T,
        zero_T,
        zero_T,
        None,
        offsets,
        rewards_N,
        eta=1.0,
        group_offsets=whole,
        centered=True,
    )
    assert stats.target_N.tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert stats.residual_N.tolist() == pytest.approx([-0.4, 0.2, 0.2])
    assert float(total) == pytest.approx(0.08)
    for mode, weight in (("geometric", 0.905), ("sequence", 0.670), ("masked", 1.0)):
        weight_N, _ = sequence_weights(mode, torch.tensor([-0.4]), torch.tensor([4]))
        assert float(weight_N[0]) == pytest.approx(weight, abs=5e-4)


@pytest.mark.parametrize("term", ["entropy", "kl"])
def test_optional_terms_move_the_fixed_point_as_documented(term: str) -> None:
    """The gradient of loss and term vanishes at the policy that docs/objective.md names, sampled by
    itself.
    """
    torch.manual_seed(5)
    arms, eta, coefficient = 6, 1.5, 0.4
    log_anchor_A = torch.randn(arms, dtype=torch.float64).log_softmax(-1)
    log_reference_A = torch.randn(arms, dtype=torch.float64).log_softmax(-1)
    score_A = torch.rand(arms, dtype=torch.float64)
    log_pi_A = (log_anchor_A + eta * score_A).log_softmax(-1)
    if term == "entropy":
        log_pi_A = ((log_anchor_A + eta * score_A) / (1 + coefficient / 2)).log_softmax(-1)
    else:
        for _ in range(2000):  # an implicit equation: damped fixed-point iteration
            pull_A = coefficient / 2 * ((log_reference_A - log_pi_A).exp() - 1)
            log_pi_A = (0.5 * log_pi_A + 0.5 * (log_anchor_A + eta * score_A + pull_A)).log_softmax(
                -1
            )
    theta_A = log_pi_A.clone().requires_grad_()
    logprob_A = theta_A.log_softmax(-1)
    log_weight_A = log_pi_A + math.log(
        arms
    )  # the mean over arms is then the expectation under the policy
    target_A = score_A - torch.logsumexp(log_anchor_A + eta * score_A, -1) / eta
    total, stats = sppo_loss(
        logprob_A, log_anchor_A, log_anchor_A - log_weight_A, None, torch.arange(arms + 1),
        target_A,
        eta=eta, weight_mode="sequence", cap=math.inf,
    )  # fmt: skip
    if term == "entropy":
        total = total + coefficient * (logprob_A.exp() * logprob_A).sum()
    else:
        total = total + coefficient * (stats.weight_N * kl_k3(logprob_A, log_reference_A)).mean()
    total.backward()
    assert theta_A.grad is not None
    assert float(theta_A.grad.norm()) < 1e-10
