"""The six statements of docs/objective.md on policies small enough to enumerate.

Shape suffixes: A arms (completions of one token), N completions of enumerated groups, G groups.

Everything goes through the functions that the learner trains with; expectations are exact
(`sppo.bench.laboratory`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from sppo.bench.checks import Finding, at_most
from sppo.bench.laboratory import (
    ARMS,
    ETA,
    Lab,
    flat,
    gap,
    largest_mean,
    minimise,
    nash,
    partial_errors,
    random_game,
    rms,
)
from sppo.learner.objectives.targets import compute_targets, win_rates
from sppo.scorer.comparisons import Compare, pairs

GROUP_SIZES = (2, 4, 8, 16, 32, 64)
DELAYS = (0, 1, 4)


# 1 ------------------------------------------------------------------------------------------------
def fixed_point(seed: int) -> Finding:
    """Minimise the expected loss under several samplers and compare the minimiser with π_a exp(η s)
    / Z.
    """
    lab = Lab(seed)
    best_A = lab.log_anchor_A + ETA * lab.score_A - lab.log_z
    errors: dict[str, dict[str, float]] = {}
    for name, log_sampler_A in lab.samplers().items():
        regression = partial(lab.expected_loss, log_nu_A=log_sampler_A)
        errors[name] = {
            "exact partition": gap(
                minimise(partial(regression, target_A=lab.score_A - lab.log_z / ETA)), best_A
            ),
            "centered": gap(
                minimise(partial(lab.expected_centered_loss, log_nu_A=log_sampler_A, k=2)), best_A
            ),
            "1/2 for the partition": gap(
                minimise(partial(regression, target_A=lab.score_A - 0.5)), best_A
            ),
        }
    worst = max(max(e["exact partition"], e["centered"]) for e in errors.values())
    return Finding(
        check=at_most("fixed_point", worst, 1e-6, "nats"),
        statement="With the exact log-partition, or centered, the minimiser is π_a exp(η s)/Z "
        "whatever sampled.",
        series={"max |log π − log π*| by sampler": errors},
    )


# 2 ------------------------------------------------------------------------------------------------
def baseline_on_policy(seed: int) -> Finding:
    """An error c of the baseline adds 2c E_ν[w ∇log π_θ]: nothing on-policy, something for a stale
    sampler.
    """
    lab, c = Lab(seed), 0.1
    shifts = [i / 10 for i in range(11)]
    added: dict[str, list[float]] = {"the sampler is stale": [], "the policy has moved": []}
    off = 0.0
    corrected = 0.0
    for shift in shifts:  # away from each other, from where both are the anchor
        moved_A = torch.log_softmax((1 - shift) * lab.log_anchor_A + shift * lab.log_other_A, -1)
        for name, log_nu_A, log_pi_A in (
            ("the sampler is stale", moved_A, lab.log_anchor_A),
            ("the policy has moved", lab.log_anchor_A, moved_A),
        ):
            right_A, wrong_A = (  # the residual of the second is higher by c
                lab.gradient(
                    partial(lab.expected_loss, log_nu_A=log_nu_A, target_A=lab.score_A - a / ETA),
                    log_pi_A,
                )
                for a in (lab.log_z, lab.log_z + c)
            )
            formula_A = 2 * c * (log_nu_A.exp() - log_pi_A.exp())  # E_ν[∇θ log π] = ν − π
            off = max(off, float((wrong_A - right_A - formula_A).norm()))
            added[name].append(float((wrong_A - right_A).norm()))
            right_A, wrong_A = (  # weighted by ρ = π_θ / ν
                lab.gradient(
                    partial(
                        lab.expected_loss,
                        log_nu_A=log_nu_A,
                        target_A=lab.score_A - a / ETA,
                        ratio_A=(log_pi_A - log_nu_A).exp(),
                    ),
                    log_pi_A,
                )
                for a in (lab.log_z, lab.log_z + c)
            )
            corrected = max(corrected, float((wrong_A - right_A).norm()))
    on_policy = max(corrected, *(norms[0] for norms in added.values()))
    return Finding(
        check=at_most("baseline_on_policy", max(on_policy, off), 1e-12, "gradient norm"),
        statement="A baseline wrong by c adds 2c E_ν[w ∇log π_θ] to the gradient: nothing "
        "only while ν w = π_θ.",
        series={
            "distance between sampler and policy": shifts,
            "norm of what is added": added,
            "c": c,
        },
    )


# 3 ------------------------------------------------------------------------------------------------
def weighted_partition(seed: int) -> Finding:
    """log Ẑ and P̂ from K stale samples, with exact ρ and without, against their values under the
    anchor.
    """
    lab = Lab(seed)
    sizes = [2**i for i in range(1, 15)]
    game_AA = random_game(ARMS, lab.generator)
    elsewhere_z = float(torch.logsumexp(lab.log_other_A + ETA * lab.score_A, -1))
    rate_A, elsewhere_A = game_AA @ lab.log_anchor_A.exp(), game_AA @ lab.log_other_A.exp()
    errors: dict[str, list[float]] = {
        f"{q}, {w}": [] for q in ("log Z", "win rate") for w in ("with ρ", "without")
    }
    offs: dict[str, float] = {}
    for size in sizes:
        counts_GA = lab.draw(lab.log_other_A, size, groups=400)
        for name, weight_GA in (("with ρ", counts_GA * lab.ratio_A), ("without", counts_GA)):
            ids_N, flat_N = flat(weight_GA)
            score_N = lab.score_A.repeat(len(weight_GA))
            target_N = compute_targets(
                "softmean", eta=ETA, group_ids_N=ids_N, rewards_N=score_N, weights_N=flat_N
            )
            log_z_G = ETA * (score_N - target_N).view(-1, ARMS)[:, 0]
            rate_GA = win_rates([game_AA] * len(weight_GA), ids_N, flat_N).view(-1, ARMS)
            errors[f"log Z, {name}"].append(rms(log_z_G - lab.log_z))
            errors[f"win rate, {name}"].append(rms(rate_GA - rate_A))
            limit_z, limit_A = (
                (lab.log_z, rate_A) if name == "with ρ" else (elsewhere_z, elsewhere_A)
            )
            offs[f"log Z, {name}"] = abs(float(log_z_G.mean()) - limit_z) / abs(
                elsewhere_z - lab.log_z
            )
            offs[f"win rate, {name}"] = rms(rate_GA.mean(0) - limit_A) / rms(elsewhere_A - rate_A)
    return Finding(
        check=at_most(
            "weighted_partition",
            max(offs.values()),
            0.1,
            f"of the distance between both limits, K = {sizes[-1]}",
        ),
        statement="With exact ρ, log Ẑ and P̂ converge to their values under the anchor; "
        "without, to the sampler's.",
        series={"K": sizes, "root mean square error": errors, "off the limit": offs},
    )


# 4 ------------------------------------------------------------------------------------------------
def on_policy_gradient(seed: int) -> Finding:
    """With w = ρ the expected gradient is the on-policy one; what K-sample targets and `centered`
    make of it.
    """
    lab = Lab(seed)
    exact_A = lab.score_A - lab.log_z / ETA
    wanted_A = lab.gradient(partial(lab.expected_loss, log_nu_A=lab.log_anchor_A, target_A=exact_A))
    stale_A = lab.gradient(
        partial(lab.expected_loss, log_nu_A=lab.log_other_A, target_A=exact_A, ratio_A=lab.ratio_A)
    )
    error = float((stale_A - wanted_A).norm() / wanted_A.norm())
    weights = {
        "w = ρ": lab.ratio_A,
        "w geometric, c = 1.2": lab.ratio_A.clamp(1 / 1.2, 1.2),
        "w = 1": torch.ones(ARMS),
    }
    bias: dict[str, list[float]] = {name: [] for name in weights}
    for size in GROUP_SIZES:
        counts_GA = lab.draw(lab.log_other_A, size, groups=40_000)
        for name, weight_A in weights.items():
            weight_GA = counts_GA * weight_A
            ids_N, flat_N = flat(weight_GA)
            score_N = lab.score_A.repeat(len(counts_GA))
            target_N = compute_targets(
                "softmean", eta=ETA, group_ids_N=ids_N, rewards_N=score_N, weights_N=flat_N
            )
            per_arm_A = (weight_GA * target_N.view(-1, ARMS)).mean(0) / size
            bias[name].append(
                float(
                    (lab.score_gradient(-2 * ETA * per_arm_A) - wanted_A).norm() / wanted_A.norm()
                )
            )
    sizes = (2, 3, 4, 5)
    short, shares, stray = [], [], []
    for size in sizes:
        got_A = lab.gradient(
            partial(
                lab.expected_centered_loss, log_nu_A=lab.log_other_A, k=size, ratio_A=lab.ratio_A
            )
        )
        share = float(got_A @ wanted_A / (wanted_A @ wanted_A))
        shares.append(share)
        short.append(abs(share - (size - 1) / size))
        stray.append(float((got_A - share * wanted_A).norm() / wanted_A.norm()))
    value = max(error, *short, *stray)
    return Finding(
        check=at_most("on_policy_gradient", value, 1e-10, "relative error"),
        statement="With w = ρ and exact A the expected gradient is the on-policy one; "
        "centered gives (K − 1)/K of it.",
        series={
            "K": GROUP_SIZES,
            "relative bias of softmean": bias,
            "centered K": sizes,
            "centered share of the on-policy gradient": shares,
            "(K - 1)/K": [(k - 1) / k for k in sizes],
        },
    )


# 5 ------------------------------------------------------------------------------------------------
def duality_gap(seed: int) -> Finding:
    """Self-play on a biased rock-paper-scissors, opponents d updates old, each update taken to its
    fixed point.

    The seed draws the policy that it begins with.
    """
    start_3 = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    game_33 = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]], dtype=torch.float64)
    steps, eta = 16_000, 0.1
    nash_3 = nash(game_33)
    marks = sorted({round(10 ** (i / 8)) for i in range(8, 34)} | {steps})
    # Every delay is a group of its own: one call for all. D delays, 3 arms.
    ids_N = torch.arange(len(DELAYS)).repeat_interleave(3)
    log_pi_D3 = torch.log_softmax(2 * start_3, -1).repeat(len(DELAYS), 1)
    history, total_D3 = [log_pi_D3] * (max(DELAYS) + 1), torch.zeros_like(log_pi_D3)
    gaps: dict[str, list[float]] = {f"d = {d}": [] for d in DELAYS}
    for t in range(1, steps + 1):
        opponents_D3 = torch.stack([history[-1 - delay][d] for d, delay in enumerate(DELAYS)]).exp()
        target_N = compute_targets(
            "softmean", eta=eta, group_ids_N=ids_N, rewards_N=(opponents_D3 @ game_33.T).flatten(),
            weights_N=log_pi_D3.exp().flatten(),
        )  # fmt: skip
        log_pi_D3 = log_pi_D3 + eta * target_N.view_as(
            log_pi_D3
        )  # the minimiser, see `fixed_point`
        history = [*history[1:], log_pi_D3]
        total_D3 += log_pi_D3.exp()
        if t in marks:
            for gap, average_3 in zip(gaps.values(), total_D3 / t, strict=True):
                gap.append(2 * float((game_33 @ average_3).max() - 0.5))
    away = {
        name: float((average_3 - nash_3).abs().max())
        for name, average_3 in zip(gaps, total_D3 / steps, strict=True)
    }
    worst = max(g[-1] for g in gaps.values())
    return Finding(
        check=at_most("duality_gap", worst, 0.02, f"of the average iterate after {steps} updates"),
        statement="Self-play on an intransitive game approaches the Nash mixture in average, "
        "also with old opponents.",
        series={
            "updates": marks,
            "duality gap": gaps,
            "nash": nash_3.tolist(),
            "average iterate from nash": away,
        },
    )


# 6 ------------------------------------------------------------------------------------------------
def partial_comparisons(seed: int) -> Finding:
    """Win rates of one group of six by each strategy, in all 720 orders of its completions: the
    mean over whom each meets is exact.
    """
    lab, k = Lab(seed), 6
    arms_K = torch.randperm(ARMS, generator=lab.generator)[:k]
    strength_K = 3 * lab.score_A[arms_K]
    games = {
        "cycles": random_game(k, lab.generator),
        "one scale": torch.sigmoid(strength_K[:, None] - strength_K),
    }
    weight_K = lab.ratio_A[arms_K]
    comparisons: dict[str, list[int]] = {}
    bias: dict[str, list[float]] = {}
    spread: dict[str, list[float]] = {}
    within: dict[str, list[float]] = {}
    plans: dict[Compare, range] = {"circular": range(1, 4), "anchors": range(1, k)}
    for compare, opponents in plans.items():
        for few in opponents:
            asked = pairs(compare, k, opponents=few, uid=f"{seed}")
            comparisons.setdefault(compare, []).append(len(asked))
            for game, matrix_KK in games.items():
                error_PK = partial_errors(matrix_KK, asked)
                bias.setdefault(f"{compare}, {game}", []).append(largest_mean(error_PK))
                spread.setdefault(f"{compare}, {game}", []).append(rms(error_PK))
                apart_PK = error_PK - error_PK.mean(1, keepdim=True)
                within.setdefault(f"{compare}, {game}", []).append(rms(apart_PK))
            for name, error_PK in (
                ("unequal weights", partial_errors(games["cycles"], asked, weight_K)),
                ("1/2 averaged in", partial_errors(games["cycles"], asked, naive=True)),
            ):
                bias.setdefault(f"{compare}, {name}", []).append(largest_mean(error_PK))
    worst = max(max(bias[f"{compare}, {game}"]) for compare in comparisons for game in games)
    return Finding(
        check=at_most("partial_comparisons", worst, 1e-12, "of the mean of a win rate"),
        statement="Over some opponents a win rate has the mean of the whole matrix, whatever their "
        "number; its variance grows.",
        series={
            "comparisons": comparisons,
            "bias": bias,
            "standard deviation": spread,
            "standard deviation within the group": within,
        },
    )


EXPERIMENTS: dict[str, Callable[[int], Finding]] = {
    "fixed_point": fixed_point,
    "baseline_on_policy": baseline_on_policy,
    "weighted_partition": weighted_partition,
    "on_policy_gradient": on_policy_gradient,
    "duality_gap": duality_gap,
    "partial_comparisons": partial_comparisons,
}
