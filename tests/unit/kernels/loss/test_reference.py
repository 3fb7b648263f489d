"""The loss in plain torch: completions that take no part in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sppo.kernels import LossStats, sequence_weights, sppo_loss
from tests import completions as cases


def evaluate(**given: Any) -> tuple[Tensor, Tensor, LossStats]:
    logprob_T = given.pop("logprob_T").clone().requires_grad_()
    loss, stats = sppo_loss(logprob_T, **given, **cases.SETTINGS)
    (grad_T,) = torch.autograd.grad(loss, logprob_T)
    return loss.detach(), grad_T, stats


def test_a_rejected_completion_takes_no_part_in_its_groups_mean() -> None:
    cases.check_one_rejected(*sppo_loss(**cases.one_rejected()))


def test_a_completion_without_a_token_that_counts_takes_part_in_nothing() -> None:
    cases.check_alone(evaluate)


def test_the_normaliser_that_is_given_is_taken() -> None:
    given = cases.one_rejected()
    loss, _ = sppo_loss(**given)
    of_eight, _ = sppo_loss(**given, normalizer=8)
    assert float(of_eight) == float(loss) / 2


def test_a_step_of_nothing_is_no_loss() -> None:
    given = cases.one_rejected() | {"mask_T": torch.zeros(4)}
    loss, stats = sppo_loss(**given)
    assert float(loss) == 0
    assert stats.weight_N.tolist() == [0, 0, 0, 0]
    weight_N, _ = sequence_weights("geometric", torch.zeros(2), torch.tensor([0.0, 3.0]))
    assert weight_N.tolist() == [0, 1]
