"""Exact expectations, minimisers and equilibria."""

from __future__ import annotations

import pytest
import torch

from sppo.bench import laboratory
from sppo.bench.laboratory import ARMS, ETA, Lab


def test_the_expected_loss_is_the_weighted_mean_of_squared_residuals() -> None:
    lab = Lab(3)
    for log_nu_A in lab.samplers().values():
        assert log_nu_A.exp().sum().item() == pytest.approx(1)
        residual_A = (lab.log_other_A - lab.log_anchor_A) - ETA * lab.score_A
        wanted = float((log_nu_A.exp() * residual_A**2).sum())
        found = float(lab.expected_loss(lab.log_other_A, log_nu_A, lab.score_A))
        assert found == pytest.approx(wanted)


def test_a_minimiser_is_found_to_the_precision_of_the_gradient() -> None:
    wanted_A = torch.log_softmax(torch.arange(ARMS, dtype=torch.float64) / 5, -1)
    found_A = laboratory.minimise(lambda logprob_A: (logprob_A - wanted_A).square().sum())
    assert laboratory.gap(found_A, wanted_A) < 1e-9


def test_the_equilibrium_of_rock_paper_scissors_is_even() -> None:
    game = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(laboratory.nash(game), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_a_random_game_is_one() -> None:
    game = laboratory.random_game(5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(game + game.T, torch.ones(5, 5, dtype=torch.float64))
    assert game.diagonal().tolist() == [0.5] * 5
