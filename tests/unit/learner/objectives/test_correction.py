"""Off-policy weights and rejection of a batch, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from sppo import kernels
from sppo.learner.objectives import make
from sppo.learner.objectives.correction import correct, is_plain
from tests.unit.learner.objectives import makers


def two(log_rho: list[list[float]]) -> makers.ObjectiveBatch:
    """One group of completions whose tokens have these log-ratios."""
    flat = torch.tensor([x for tokens in log_rho for x in tokens], dtype=torch.float64)
    count = len(log_rho)
    return replace(
        makers.random_batch(),
        logprob_T=torch.zeros_like(flat),
        entropy_T=torch.zeros_like(flat),
        anchor_T=torch.zeros_like(flat),
        behavior_T=-flat,
        reference_T=None,
        cu_seqlens=makers.offsets([len(tokens) for tokens in log_rho]),
        group_offsets=torch.tensor([0, count]),
        keep_N=torch.ones(count, dtype=torch.bool),
        rewards_N=torch.arange(count, dtype=torch.float64),
        finished_N=torch.ones(count, dtype=torch.bool),
    )


def test_a_completion_is_rejected_by_its_geometric_mean_whatever_its_weight() -> None:
    """ρ^(1/tokens) = 1, e^−0.4 = 0.67, e^0.4 = 1.49 within [0.7, 1.6]."""
    batch = two([[0.3, -0.3], [-0.4], [0.6, 0.2]])
    settings = makers.settings(reject="geometric", reject_low=0.7, reject_high=1.6, weight="none")
    found = correct(settings, batch)
    assert found.accepted_T is not None
    assert found.accepted_T.tolist() == [True, True, False, True, True]
    assert found.weight_N.tolist() == [1, 0, 1]
    assert found.figures(settings, batch)["rejected_T"].mean() == pytest.approx(0.2)


def test_tokens_are_rejected_by_their_own_ratio_and_weights_are_of_the_rest() -> None:
    batch = two([[0.1, 5.0, 0.1], [2.0, -3.0]])
    settings = makers.settings(reject="token", weight="geometric", weight_cap=1.5)
    found = correct(settings, batch)
    assert found.accepted_T is not None
    assert found.accepted_T.tolist() == [True, False, True, False, False]
    assert found.weight_N.tolist() == pytest.approx([math.exp(0.1), 0])  # the second has none left
    assert found.log_rho_N.tolist() == pytest.approx([5.2, -1.0])


@pytest.mark.parametrize(
    ("changes", "bounds"),
    [
        ({"reject": "token"}, (0.5, 2.0)),
        ({"reject": "geometric"}, (1 / 1.2, 1.2)),
        ({"reject": "token", "reject_low": 0.1}, (0.1, 2.0)),
        ({"reject": "token", "reject_low": 0.2, "reject_high": 9.0}, (0.2, 9.0)),
    ],
)
def test_bounds_are_not_symmetric(changes: dict[str, Any], bounds: tuple[float, float]) -> None:
    low, high = (math.log(bound) for bound in bounds)
    batch = two([[low - 0.01], [low + 0.01], [high - 0.01], [high + 0.01]])
    found = correct(makers.settings(weight="none", **changes), batch)
    assert found.weight_N.tolist() == [0, 1, 1, 0]


def test_ratios_of_tokens_are_truncated() -> None:
    found = correct(makers.settings(weight="token"), two([[0.1, 5.0], [-3.0]]))
    assert found.ratio_T is not None
    assert found.ratio_T.tolist() == pytest.approx([math.exp(0.1), 2.0, math.exp(-3)])
    assert found.weight_N.tolist() == [1, 1]
    weights_T = found.token_weights(torch.tensor([0, 2, 3]))
    assert weights_T.tolist() == pytest.approx(found.ratio_T.tolist())


def test_the_effective_sample_size_of_truncated_weights_cannot_fall_below_0_97() -> None:
    """Half of them at 1/1.2, half at 1.2 is the least that `geometric` with cap 1.2 can have."""
    assert kernels.effective_sample_size(torch.tensor([1 / 1.2, 1.2])) == pytest.approx(
        0.97, abs=2e-3
    )
    # Given completions that are far from their anchor, to either side
    batch = two([[3.0, 3.0], [-3.0, -3.0], [2.9], [-2.8]])
    objective = make(makers.settings())
    _, stats = makers.evaluate(objective, batch)
    found = objective.summary(stats)
    # Then the truncated weights say that all is well, and the ratios themselves that half is lost
    weights = [math.exp(x) for x in (3.0, -3.0, 2.9, -2.8)]
    wanted = sum(weights) ** 2 / 4 / sum(w * w for w in weights)
    assert found["effective_sample_size"] == pytest.approx(0.97, abs=2e-3)
    assert found["effective_sample_size_untruncated"] == pytest.approx(wanted)
    assert wanted < 0.52


@pytest.mark.parametrize(
    ("weight", "logs"),
    [("sequence", [2.0, -3.0]), ("masked", [1.0, -3.0]), ("token", [1.5, 0.5, -3.0])],
)
def test_untruncated_is_the_ratio_that_the_mode_truncates(weight: str, logs: list[float]) -> None:
    settings, batch = makers.settings(weight=weight), two([[1.5, 0.5], [-3.0]])
    found = correct(settings, batch).figures(settings, batch)["log_ratio_N"]
    assert found.tolist() == pytest.approx(logs)


@pytest.mark.parametrize(
    ("changes", "plain"),
    [({}, True), ({"weight": "masked"}, True), ({"weight": "token"}, False),
     ({"reject": "token"}, False)],
)  # fmt: skip
def test_what_the_fused_loss_knows_by_itself(changes: dict[str, Any], plain: bool) -> None:
    assert is_plain(makers.settings(**changes)) is plain


def test_groups_without_weight_are_counted_but_not_those_without_completions() -> None:
    batch = replace(two([[9.0], [9.0], [0.0]]), group_offsets=torch.tensor([0, 2, 2, 3]))
    settings = makers.settings(weight="masked")
    assert float(correct(settings, batch).figures(settings, batch)["weightless"]) == 1
