"""Groups of which not every pair was compared: every objective against its formula in plain Python,
and what the estimate is worth.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.learner.objectives import make, targets
from tests.unit.learner.objectives import makers

NAN = math.nan
MISSING = ((), ((0, 2),), ((0, 2), (0, 3), (1, 3), (2, 3)))
"""Pairs of each group that were not compared; the last completion of the last met nobody."""


def partial(matrix_KK: Tensor, missing: tuple[tuple[int, int], ...]) -> Tensor:
    found_KK = matrix_KK.clone()
    for i, j in missing:
        found_KK[i, j] = found_KK[j, i] = NAN
    return found_KK


def batch(seed: int) -> makers.ObjectiveBatch:
    made = makers.random_batch(seed, compared=True)
    assert made.preferences is not None
    tables = zip(made.preferences, MISSING, strict=True)
    return replace(made, preferences=tuple(partial(m, gone) for m, gone in tables))


class Hand:
    """The same batch as lists; `alive` are the completions of each group that met another."""

    def __init__(self, given: makers.ObjectiveBatch, *, weighted: bool) -> None:
        assert given.preferences is not None
        self.matrices = [matrix.tolist() for matrix in given.preferences]
        self.alive = [list(range(k)) for k in makers.SIZES]
        self.alive[2] = [0, 1, 2]
        log_rho = makers.summed(given.anchor_T, given.behavior_T)
        geometric = [math.exp(r / n) for r, n in zip(log_rho, makers.LENGTHS, strict=True)]
        w = [min(max(g, 1 / 1.2), 1.2) if weighted else 1.0 for g in geometric]
        self.w = [[w[i] for i in members] for members in makers.groups()]
        delta = makers.summed(given.logprob_T, given.anchor_T)
        self.delta = [[delta[i] for i in members] for members in makers.groups()]

    def met(self, g: int, i: int) -> list[int]:
        return [j for j in self.alive[g] if j != i and not math.isnan(self.matrices[g][i][j])]

    def rates(self, g: int, *, weighted: bool = True) -> dict[int, float]:
        alive, matrix = self.alive[g], self.matrices[g]
        w = {i: self.w[g][i] if weighted else 1.0 for i in alive}
        share = {i: w[i] / sum(w.values()) for i in alive}
        return {
            i: share[i] / 2
            + (1 - share[i])
            * sum(w[j] * matrix[i][j] for j in self.met(g, i))
            / sum(w[j] for j in self.met(g, i))
            for i in alive
        }

    def extremes(self, g: int, *, met: bool) -> tuple[int, int]:
        rates = self.rates(g, weighted=False)
        pairs = [
            (i, j)
            for i in self.alive[g]
            for j in self.alive[g]
            if i != j and (not met or j in self.met(g, i))
        ]
        return max(pairs, key=lambda pair: rates[pair[0]] - rates[pair[1]])


def sppo_by_hand(hand: Hand, target: str, select: str, label: str, eta: float) -> float:
    total, kept = 0.0, 0
    for g in range(len(makers.SIZES)):
        rates, w, delta = hand.rates(g), hand.w[g], hand.delta[g]
        keep = hand.alive[g]
        if select == "best_worst":
            keep = sorted(hand.extremes(g, met=label == "pair"))
        if label == "pair":
            aims = {i: hand.matrices[g][i][sum(keep) - i] - 0.5 for i in keep}
        elif label == "hard":
            best = hand.extremes(g, met=False)[0]
            aims = {i: 0.5 if i == best else -0.5 for i in keep}
        elif target == "softmean":
            all_w = sum(w[j] for j in hand.alive[g])
            mean = sum(w[j] / all_w * math.exp(eta * rates[j]) for j in hand.alive[g])
            aims = {i: rates[i] - math.log(mean) / eta for i in keep}
        else:
            aims = {i: rates[i] - (0.5 if target == "half" else 0.0) for i in keep}
        residual = {i: delta[i] - eta * aims[i] for i in keep}
        if target == "centered":
            middle = sum(residual.values()) / len(keep)
            residual = {i: r - middle for i, r in residual.items()}
        total += sum(w[i] * r**2 for i, r in residual.items())
        kept += len(keep)
    return total / kept


SPPO = [
    ("centered", "all", "group"),
    ("softmean", "all", "group"),
    ("half", "all", "group"),
    ("centered", "best_worst", "group"),
    ("half", "best_worst", "group"),
    ("half", "best_worst", "pair"),
    ("half", "best_worst", "hard"),
]


@pytest.mark.parametrize(("target", "select", "label"), SPPO)
@pytest.mark.parametrize("weight", ["none", "geometric"])
@pytest.mark.parametrize("seed", range(4))
def test_sppo_is_the_formula(target: str, select: str, label: str, weight: str, seed: int) -> None:
    given = batch(seed)
    hand = Hand(given, weighted=weight == "geometric")
    changes = {"target": target, "select": select, "label": label, "weight": weight, "eta": 1.5}
    found = makers.value(changes, given)
    assert found == pytest.approx(sppo_by_hand(hand, target, select, label, 1.5), rel=1e-12)


@pytest.mark.parametrize("select", ["all", "best_worst"])
@pytest.mark.parametrize("label", ["group", "pair"])
@pytest.mark.parametrize("seed", range(4))
def test_inpo_takes_the_pairs_that_were_compared(select: str, label: str, seed: int) -> None:
    given = batch(seed)
    hand, wanted = Hand(given, weighted=True), 0.0
    for g in range(len(makers.SIZES)):
        pairs = [(i, j) for i in hand.alive[g] for j in hand.met(g, i) if i < j]
        if select == "best_worst":
            pairs = [hand.extremes(g, met=True)]
        for i, j in pairs:
            ahead = hand.matrices[g][i][j] - 0.5
            goal = ahead if label == "pair" else math.copysign(0.5, ahead)
            gap = hand.delta[g][i] - hand.delta[g][j] - 2.0 * goal
            wanted += hand.w[g][i] * hand.w[g][j] * gap**2 / len(pairs) / len(makers.SIZES)
    changes = {"name": "inpo", "select": select, "label": label, "eta": 2.0}
    assert makers.value(changes, given) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_dpo_takes_the_extremes_whether_they_met_or_not(seed: int) -> None:
    given = batch(seed)
    hand, gap, wanted = Hand(given, weighted=False), [0.0] * 9, 0.0
    gap = makers.summed(given.logprob_T, given.reference_T)
    for g, members in enumerate(makers.groups()):
        best, worst = (members[i] for i in hand.extremes(g, met=False))
        wanted += math.log(1 + math.exp(-0.1 * (gap[best] - gap[worst]))) / len(makers.SIZES)
    assert makers.value({"name": "dpo"}, given) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_grpo_normalises_the_win_rates_of_those_that_met(seed: int) -> None:
    given = batch(seed)
    found = make(makers.settings(name="grpo")).select(makers.scored(given))
    hand, wanted = Hand(given, weighted=False), []
    for g, k in enumerate(makers.SIZES):
        rates = hand.rates(g)
        mean = sum(rates.values()) / len(rates)
        std = math.sqrt(sum((r - mean) ** 2 for r in rates.values()) / (len(rates) - 1))
        wanted += [(rates[i] - mean) / (std + 1e-4) if i in rates else 0.0 for i in range(k)]
    assert found.target_N is not None
    assert found.target_N.tolist() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "softmean", "weight": "masked"},
        {"target": "half", "select": "best_worst", "label": "pair"},
        {"name": "inpo", "kappa": 0.3},
        {"name": "inpo", "select": "best_worst", "weight": "token"},
        {"name": "rspo", "reverse_kl_coef": 0.2, "target": "half"},
        {"name": "dpo"},
        {"name": "grpo", "clip_low": 0.9, "clip_high": 5.0},
    ],
)
def test_gradients_agree_with_finite_differences(changes: dict[str, Any]) -> None:
    objective = make(makers.settings(**changes))
    assert makers.off_differences(objective, batch(8)) < 1e-6


@pytest.mark.parametrize("name", ["sppo", "inpo", "rspo", "dpo", "grpo"])
def test_one_that_met_nobody_is_not_trained(name: str) -> None:
    found = make(makers.settings(name=name)).select(makers.scored(batch(0)))
    assert not found.keep_N[8]
    assert not found.fed_N[8]
    assert not found.idle_G.any()


@pytest.mark.parametrize("name", ["sppo", "inpo", "rspo", "dpo", "grpo"])
def test_a_group_is_without_signal_where_all_that_was_compared_ties(name: str) -> None:
    given = batch(0)
    assert given.preferences is not None
    even_KK = partial(torch.full((4, 4), 0.5, dtype=torch.float64), MISSING[2])
    given = replace(given, preferences=(*given.preferences[:2], even_KK))
    found = make(makers.settings(name=name)).select(makers.scored(given))
    assert found.idle_G.tolist() == ([False] * 3 if name == "rspo" else [False, False, True])


def test_extremes_that_never_met_give_way_to_the_pair_furthest_apart_that_did() -> None:
    # Given 0 beats 1 beats 2 beats 3 beats 4, each by more, the ends not compared
    chain_KK = torch.full((5, 5), NAN).fill_diagonal_(0.5)
    for i, p in enumerate((0.6, 0.7, 0.8, 0.9)):
        chain_KK[i, i + 1], chain_KK[i + 1, i] = p, 1 - p
    ids_N = torch.zeros(5, dtype=torch.int64)
    rates_N = targets.win_rates([chain_KK], ids_N)
    assert rates_N.argsort().tolist()[0] == 4
    # Then without the matrix the extremes are kept, with it the furthest two that met
    apart = targets.select_completions("best_worst", rates_N, ids_N)
    met = targets.select_completions("best_worst", rates_N, ids_N, [chain_KK])
    assert apart.nonzero()[:, 0].tolist() == [int(rates_N.argmax()), 4]
    assert met.nonzero()[:, 0].tolist() == [3, 4]


# the estimate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [2, 5, 16])
def test_a_whole_matrix_gives_what_it_always_gave_to_the_bit(k: int, dtype: torch.dtype) -> None:
    (matrix_KK,) = makers.preferences(k, [k])
    weight_K = torch.rand(k, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    matrix_KK, ids_K = matrix_KK.to(dtype), torch.zeros(k, dtype=torch.int64)
    share_K = targets.normalized_weights(weight_K, ids_K).to(dtype)
    found_K = targets.win_rates([matrix_KK], ids_K, weight_K)
    assert torch.equal(found_K, matrix_KK @ share_K)
    assert torch.allclose(found_K, targets._met_rates(matrix_KK, share_K))


@pytest.mark.parametrize("opponents", [1, 2, 3, 4])
def test_over_all_sets_of_opponents_the_mean_is_the_win_rate_of_the_whole_matrix(
    opponents: int,
) -> None:
    (matrix_KK,) = makers.preferences(0, [6])
    ids_K = torch.zeros(6, dtype=torch.int64)
    wanted = float(targets.win_rates([matrix_KK], ids_K)[0])
    found = []
    for met in itertools.combinations(range(1, 6), opponents):
        missing = tuple((0, j) for j in range(1, 6) if j not in met)
        found.append(float(targets.win_rates([partial(matrix_KK, missing)], ids_K)[0]))
    assert sum(found) / len(found) == pytest.approx(wanted, rel=1e-12)


def test_opponents_of_weight_0_count_alike_where_no_other_was_met() -> None:
    matrix_KK = torch.tensor([[0.5, 0.9, NAN], [0.1, 0.5, 0.3], [NAN, 0.7, 0.5]])
    weight_K = torch.tensor([1.0, 0.0, 1.0])
    found = targets.win_rates([matrix_KK], torch.zeros(3, dtype=torch.int64), weight_K)
    assert found.tolist() == pytest.approx([0.25 + 0.45, 0.5 * (0.1 + 0.3), 0.25 + 0.35])


def test_one_that_met_nobody_is_told_from_one_that_is_alone() -> None:
    nobody = torch.tensor([[0.5, NAN, 0.2], [NAN, 0.5, NAN], [0.8, NAN, 0.5]])
    assert targets.unmet(nobody).tolist() == [False, True, False]
    assert targets.unmet(torch.tensor([[0.5]])).tolist() == [False]
