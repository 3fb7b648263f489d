"""Equality with the published objectives, each restated here from its paper or public
documentation.

All in float32 on random groups, to a relative error of 1e-6.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sppo.kernels import sequence_log_ratios, sppo_loss
from sppo.learner.objectives.targets import (
    bradley_terry,
    compute_targets,
    pair_targets,
    select_completions,
    win_rates,
)

SEEDS = range(10)


def responses(seed: int, completions: int) -> tuple[Tensor, Tensor, Tensor]:
    """(policy, anchor) token log-probs [T] and offsets [N + 1] of responses of 1 to 12 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 13, (completions,), generator=generator)
    total = int(lengths.sum())
    anchor_T = -3 * torch.rand(total, generator=generator)
    policy_T = anchor_T + 0.2 * torch.randn(total, generator=generator)
    return policy_T, anchor_T, torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def preference(seed: int, k: int) -> Tensor:
    """A random [K, K], intransitive in general."""
    upper = torch.rand(k, k, generator=torch.Generator().manual_seed(1000 + seed)).triu(1)
    return upper + (1 - upper.T).tril(-1) + torch.eye(k) / 2


def ours(
    policy_T: Tensor, anchor_T: Tensor, offsets: Tensor, target_N: Tensor, eta: float
) -> float:
    return float(sppo_loss(policy_T, anchor_T, anchor_T, None, offsets, target_N, eta=eta)[0])


def off(found_N: Tensor, wanted: list[float]) -> float:
    """Relative error by norm."""
    wanted_N = torch.tensor(wanted, dtype=torch.float64)
    return float((found_N.double() - wanted_N).norm() / wanted_N.norm())


def log_ratios(policy_T: Tensor, anchor_T: Tensor, offsets: Tensor) -> list[float]:
    """log π_θ(y) − log π_t(y) of each response, as the papers write it, in double precision."""
    gap = (policy_T.double() - anchor_T.double()).tolist()
    return [sum(gap[a:b]) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("eta", [1.0, 0.25, 8.0])
def test_verls_soft_mean_and_loss(seed: int, eta: float) -> None:
    """verl recipe/sppo: the reward less log-mean-exp(η r)/η over the batch; squared; mean over
    non-empty responses.
    """
    policy_T, anchor_T, offsets = responses(seed, 16)
    reward = torch.rand(16, generator=torch.Generator().manual_seed(seed))
    r = reward.double().tolist()
    soft_mean = math.log(sum(math.exp(eta * x) for x in r) / 16) / eta
    ratios = log_ratios(policy_T, anchor_T, offsets)
    theirs = sum((d - eta * (x - soft_mean)) ** 2 for d, x in zip(ratios, r, strict=True)) / 16

    target_N = compute_targets(
        "batch_softmean", eta=eta, group_ids_N=torch.arange(16), rewards_N=reward
    )
    assert off(target_N, [x - soft_mean for x in r]) < 1e-6
    assert ours(policy_T, anchor_T, offsets, target_N, eta) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("eta", [1.0, 1e3])
def test_the_papers_equation_4_7(seed: int, eta: float) -> None:
    """(log π_θ/π_t − η (P̂(y ≻ π_t) − 1/2))², P̂ the mean win probability over the K responses of
    the prompt.
    """
    k, prompts = 5, 3
    policy_T, anchor_T, offsets = responses(seed, k * prompts)
    tables = [preference(seed * prompts + g, k) for g in range(prompts)]
    ratios = log_ratios(policy_T, anchor_T, offsets)
    theirs = 0.0
    for g, table in enumerate(tables):
        for i, row in enumerate(table.double().tolist()):
            theirs += (ratios[g * k + i] - eta * (sum(row) / k - 0.5)) ** 2 / (k * prompts)

    ids_N = torch.arange(prompts).repeat_interleave(k)
    target_N = compute_targets("half", eta=eta, group_ids_N=ids_N, preferences=tables)
    assert ours(policy_T, anchor_T, offsets, target_N, eta) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("label", "beta"), [("group", 1e-3), ("pair", 1e-3), ("hard", 0.1), ("group", 0.5)]
)
def test_the_pairwise_trainers(seed: int, label: str, beta: float) -> None:
    """Winner and loser of K responses, η = 1/β.

    uclaml `sppo`: half the sum of both squares, targets P̂_w − 1/2 and P̂_l − 1/2. uclaml
    `sppo_single`: the same with P_wl − 1/2 and its negative. TRL `sppo_hard`: the sum of (Δ_w −
    1/2β)² and (Δ_l + 1/2β)². All: mean over pairs.
    """
    k, prompts = 5, 4
    policy_T, anchor_T, offsets = responses(seed, k * prompts)
    tables = [preference(seed * prompts + g, k) for g in range(prompts)]
    ratios = log_ratios(policy_T, anchor_T, offsets)
    theirs = 0.0
    for g, table in enumerate(tables):
        rate = table.double().mean(dim=1).tolist()
        w, lose = rate.index(max(rate)), rate.index(min(rate))
        d_w, d_l = ratios[g * k + w], ratios[g * k + lose]
        if label == "hard":
            theirs += ((d_w - 1 / (2 * beta)) ** 2 + (d_l + 1 / (2 * beta)) ** 2) / prompts
            continue
        win = rate[w] if label == "group" else float(table[w, lose])
        loss = rate[lose] if label == "group" else 1 - float(table[w, lose])
        theirs += ((d_w - (win - 0.5) / beta) ** 2 + (d_l - (loss - 0.5) / beta) ** 2) / 2 / prompts

    ids_N = torch.arange(prompts).repeat_interleave(k)
    scores_N = win_rates(tables, ids_N)
    kept_N = select_completions("best_worst", scores_N, ids_N)
    if label == "group":
        target_N = compute_targets("half", eta=1 / beta, group_ids_N=ids_N, preferences=tables)
    else:
        target_N = pair_targets(
            label, kept_N=kept_N, scores_N=scores_N, group_ids_N=ids_N, preferences=tables
        )
    lengths_N = offsets.diff()
    kept_T = torch.repeat_interleave(kept_N, lengths_N)
    kept_offsets = torch.nn.functional.pad(lengths_N[kept_N].cumsum(0), (1, 0))
    got = ours(policy_T[kept_T], anchor_T[kept_T], kept_offsets, target_N[kept_N], 1 / beta)
    assert got * (2 if label == "hard" else 1) == pytest.approx(
        theirs, rel=1e-6
    )  # TRL: twice our mean


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sample_partition_of_equation_4_4(seed: int) -> None:
    """log Z estimated by the K responses of the prompt: A = s − (1/η) log (1/K) Σ exp(η s), here of
    linked rewards.
    """
    eta, k = 2.0, 6
    reward = torch.randn(k, generator=torch.Generator().manual_seed(seed))
    ids_N = torch.zeros(k, dtype=torch.int64)
    linked = bradley_terry(reward, ids_N, temperature=0.7)
    r = reward.double().tolist()
    rate = [sum(1 / (1 + math.exp(-(a - b) / 0.7)) for b in r) / k for a in r]
    log_z = math.log(sum(math.exp(eta * p) for p in rate) / k)
    target_N = compute_targets("softmean", eta=eta, group_ids_N=ids_N, preferences=linked)
    assert off(target_N, [p - log_z / eta for p in rate]) < 1e-6


def test_summed_log_ratios_count_masked_tokens_for_nothing() -> None:
    policy_T, anchor_T, offsets = responses(0, 4)
    mask_T = torch.ones_like(policy_T)
    mask_T[int(offsets[1])] = 0
    delta_N, log_rho_N, length_N = sequence_log_ratios(
        policy_T, anchor_T, anchor_T - 1, mask_T, offsets
    )
    assert length_N.tolist() == (offsets.diff() - torch.tensor([0, 1, 0, 0])).tolist()
    assert log_rho_N.tolist() == pytest.approx(length_N.tolist())
    gap = float(policy_T[offsets[1]] - anchor_T[offsets[1]])
    assert float(delta_N[1]) == pytest.approx(
        log_ratios(policy_T, anchor_T, offsets)[1] - gap, abs=1e-5
    )
