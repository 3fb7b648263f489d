"""Scores as an objective reads them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sppo.learner.objectives import Scored, make, scores
from tests.unit.learner.objectives import makers

CUT = torch.tensor([True, False, True, False, False])


def given(*, compared: bool = False) -> Scored:
    """Groups of two and three completions; the second, fourth and fifth were cut."""
    return Scored(
        rewards_N=None if compared else torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]),
        preferences=makers.preferences(0, [2, 3]) if compared else None,
        group_offsets=torch.tensor([0, 2, 5]),
        length_N=torch.tensor([3, 8, 2, 8, 8]),
        finished_N=CUT,
    )


def test_cut_completions_are_trained_by_default() -> None:
    found = scores.read(makers.settings(), given())
    assert found.eligible_N.all()
    assert found.scores().tolist() == [1, 2, 3, 4, 5]
    assert found.signal().tolist() == [True, True]


def test_masked_they_take_no_part() -> None:
    found = scores.read(makers.settings(truncated="mask"), given())
    assert found.eligible_N.tolist() == CUT.tolist()
    assert found.scores().tolist() == [1, 3]
    assert found.spread(found.scores()).tolist() == [1, 0, 3, 0, 0]
    assert found.signal().tolist() == [False, False]  # one alone tells nothing


def test_a_group_of_which_all_were_cut_is_none() -> None:
    cut = replace(given(compared=True), finished_N=torch.tensor([False, False, True, True, True]))
    found = scores.read(makers.settings(truncated="mask"), cut)
    assert found.preferences is not None
    assert [len(matrix) for matrix in found.preferences] == [3]
    assert found.signal().tolist() == [False, True]


def test_scored_0() -> None:
    found = scores.read(makers.settings(truncated="zero"), given())
    assert found.scores().tolist() == [1, 0, 3, 0, 0]


def test_scored_0_in_a_comparison_is_lost_to_all_that_ended() -> None:
    found = scores.read(makers.settings(truncated="zero"), given(compared=True))
    assert found.preferences is not None
    assert found.preferences[0].tolist() == [[0.5, 1], [0, 0.5]]
    assert found.preferences[1].tolist() == [[0.5, 1, 1], [0, 0.5, 0.5], [0, 0.5, 0.5]]


def test_the_link_makes_preferences_of_what_is_left() -> None:
    settings = makers.settings(link="bradley-terry", link_temperature=2.0, truncated="zero")
    found = scores.read(settings, given())
    assert found.rewards_E is None
    assert found.preferences is not None
    assert float(found.preferences[1][0, 2]) == pytest.approx(1 / (1 + math.exp(-3 / 2)))


def test_an_empty_completion_takes_no_part() -> None:
    empty = replace(given(), length_N=torch.tensor([3, 8, 0, 8, 8]))
    found = scores.read(makers.settings(), empty)
    assert found.eligible_N.tolist() == [True, True, False, True, True]


def test_scores_that_are_all_equal_tell_nothing() -> None:
    equal = replace(given(), rewards_N=torch.tensor([2.0, 2.0, 0.0, 0.0, 1.0]))
    assert scores.read(makers.settings(), equal).signal().tolist() == [False, True]
    halves = (torch.full((2, 2), 0.5), torch.full((3, 3), 0.5))
    ties = replace(given(compared=True), preferences=halves)
    assert scores.read(makers.settings(), ties).signal().tolist() == [False, False]


NAN = math.nan


def chain(*, finished: list[bool], **changes: str) -> scores.Read:
    """What is read of four completions, each compared with the next."""
    matrix = torch.full((4, 4), NAN).fill_diagonal_(0.5)
    for i, p in enumerate((0.9, 0.8, 0.7)):
        matrix[i, i + 1], matrix[i + 1, i] = p, 1 - p
    group = Scored(
        rewards_N=None,
        preferences=(matrix,),
        group_offsets=torch.tensor([0, 4]),
        length_N=torch.tensor([3, 3, 3, 3]),
        finished_N=torch.tensor(finished),
    )
    return scores.read(makers.settings(**changes), group)


def test_one_whose_only_opponents_are_masked_takes_no_part() -> None:
    found = chain(finished=[True, False, True, True], truncated="mask")
    assert found.eligible_N.tolist() == [False, False, True, True]
    assert found.preferences is not None
    assert found.preferences[0].flatten().tolist() == pytest.approx([0.5, 0.7, 0.3, 0.5])


def test_scored_0_loses_to_those_that_it_met() -> None:
    found = chain(finished=[True, False, False, True], truncated="zero")
    assert found.eligible_N.all()
    assert found.scores().tolist() == pytest.approx(
        [1 / 8 + 3 / 4, 1 / 8 + 3 / 4 * 1 / 4, 1 / 8 + 3 / 4 * 1 / 4, 1 / 8 + 3 / 4]
    )


def unread(*, finished: list[bool], **changes: str) -> scores.Read:
    """What is read of four completions, the first two compared, the others with nobody."""
    return scores.read(makers.settings(**changes), half_read(finished))


def half_read(finished: list[bool]) -> Scored:
    matrix = torch.full((4, 4), NAN).fill_diagonal_(0.5)
    matrix[0, 1], matrix[1, 0] = 0.75, 0.25
    return Scored(
        rewards_N=None,
        preferences=(matrix,),
        group_offsets=torch.tensor([0, 4]),
        length_N=torch.tensor([3, 3, 3, 3]),
        finished_N=torch.tensor(finished),
    )


def test_one_that_met_nobody_takes_no_part_cut_or_not() -> None:
    found = unread(finished=[True, True, True, False], truncated="train")
    assert found.eligible_N.tolist() == [True, True, False, False]


def test_scored_0_it_needs_no_judge_to_lose() -> None:
    # Given one that ended and one that was cut, neither of which the judge could read
    found = unread(finished=[True, True, True, False], truncated="zero")
    # Then the cut one loses to those that were judged; of the other nothing is known
    assert found.eligible_N.tolist() == [True, True, False, True]
    assert found.preferences is not None
    assert found.preferences[0].tolist() == [[0.5, 0.75, 1], [0.25, 0.5, 1], [0, 0, 0.5]]


def test_cut_ones_that_met_nobody_draw_with_each_other() -> None:
    found = unread(finished=[True, True, False, False], truncated="zero")
    assert found.eligible_N.all()
    assert found.preferences is not None
    assert found.preferences[0][2:].tolist() == [[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]]


@pytest.mark.parametrize("name", ["sppo", "inpo", "dpo", "grpo", "rspo"])
@pytest.mark.parametrize("select", ["all", "best_worst"])
def test_every_objective_trains_what_lost_by_rule(name: str, select: str) -> None:
    # Given a group whose first and last, best and worst, have met by rule alone
    one = half_read([True, True, True, False])
    changes = {"name": name, "select": select, "truncated": "zero"}
    batch = makers.random_batch(0, compared=True)
    assert batch.preferences is not None
    assert one.preferences is not None
    finished_N = torch.tensor([True] * 8 + [False])
    tables = (*batch.preferences[:2], one.preferences[0].double())
    batch = replace(batch, preferences=tables, finished_N=finished_N)
    # Then its loss is a number, to which the last one adds
    objective = make(makers.settings(**changes))
    assert math.isfinite(makers.value(changes, batch))
    assert makers.gradient(objective, batch)[-1].abs() > 0


def test_what_was_not_compared_tells_nothing() -> None:
    even = torch.tensor([[0.5, 0.5, NAN], [0.5, 0.5, 0.5], [NAN, 0.5, 0.5]])
    ties = replace(given(compared=True), preferences=(torch.full((2, 2), 0.5), even))
    assert scores.read(makers.settings(), ties).signal().tolist() == [False, False]
