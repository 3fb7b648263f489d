"""In which micro-batches a share goes through the model, and what the objective sees of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sppo.learner import feed
from sppo.learner.batching import Part
from sppo.learner.feed import ByCompletion, Tokens
from sppo.learner.objectives.base import Scope
from sppo.learner.ranks import Solo
from sppo.learner.shares import Item, Sizes
from sppo.types import Group
from tests.unit.learner import teams
from tests.unit.learner.tiny import compared, settings, without_signal


def item(group: Group, *, idle: bool = False) -> Item:
    size = len(group.completions)
    return Item.of(group, [True] * size, [True] * size, None, idle=idle)


def whole(items: list[Item], *which: int) -> list[Part]:
    return [Part(i, 0, len(items[i].keep_K)) for i in which]


@pytest.mark.parametrize(("own_anchor", "with_gradient", "without"), [(True, 1, 1), (False, 2, 0)])
def test_idle_groups_go_without_a_gradient_where_the_policy_is_its_own_anchor(
    groups: list[Group], own_anchor: bool, with_gradient: int, without: int
) -> None:
    # Given groups that fit in one micro-batch, one of them without a signal
    items = [item(groups[0]), item(without_signal(groups[1]), idle=True), item(groups[2])]
    config = settings(micro_batch_tokens=1000).learner
    found = feed.schedule(items, "group", config, Solo(), "packed", own_anchor=own_anchor)
    assert found.with_gradient[0] == whole(items, 0, 2)
    assert (len(found.with_gradient), len(found.without_gradient)) == (with_gradient, without)
    assert found.all()[1] == whole(items, 1)
    assert found.twice == []


@pytest.mark.parametrize(
    ("scope", "budget", "twice"),
    [
        ("group", 1000, set()),
        ("group", 12, {0, 1}),  # cut, and so seen together only in two passes
        ("completion", 12, set()),
        ("batch", 1000, set()),  # all of it lies in one micro-batch
        ("batch", 30, {0, 1, 2}),
    ],
)
def test_what_a_loss_must_see_together_decides_on_one_pass_or_two(
    groups: list[Group], scope: Scope, budget: int, twice: set[int]
) -> None:
    # Given two groups that are larger than 12 tokens, and one of two short completions
    chosen = [*sorted(groups, key=lambda g: -g.tokens)[:2], min(groups, key=lambda g: g.tokens)]
    short = [replace(c, token_ids=c.token_ids[:1], behavior_logprobs=c.behavior_logprobs[:1])
             for c in chosen[2].completions]  # fmt: skip
    chosen[2] = replace(chosen[2], completions=tuple(short))
    items = [item(g) for g in chosen]
    config = settings(micro_batch_tokens=budget).learner
    found = feed.schedule(items, scope, config, Solo(), "packed", own_anchor=False)
    assert {part.group for parts in found.twice for part in parts} == twice
    covered = sorted(
        (p.group, k) for parts in found.all() for p in parts for k in range(p.start, p.stop)
    )
    assert covered == [(i, k) for i, one in enumerate(items) for k in range(len(one.keep_K))]


def test_ranks_feed_as_many_micro_batches_of_each_kind(groups: list[Group]) -> None:
    # Given one rank with four groups and one with none
    config = settings(micro_batch_tokens=12).learner

    def work(team: teams.ThreadTeam) -> feed.Schedule:
        items = [] if team.rank else [item(g) for g in groups[:4]]
        return feed.schedule(items, "group", config, team, "packed", own_anchor=False)

    full, none = teams.together(2, work)
    assert [len(full.with_gradient), len(full.twice)] == [len(none.with_gradient), len(none.twice)]
    assert len(full.twice) > 0
    assert not any(none.all())


def test_values_are_found_again_by_completion_whatever_the_parts(groups: list[Group]) -> None:
    items = [item(g) for g in groups[:2]]
    values_T = torch.arange(sum(g.tokens for g in groups[:2]), dtype=torch.float32)
    known = ByCompletion()
    assert items[0] not in known
    known.add(items, values_T)
    assert items[0] in known
    parts = [one.part(k, k + 1) for one in items for k in range(len(one.keep_K))]
    assert torch.equal(known.of(parts), values_T)
    assert torch.equal(known.of([items[1]]), values_T[groups[0].tokens :])


@pytest.mark.parametrize("preferences", [False, True])
def test_an_objective_sees_fed_completions_alone(groups: list[Group], preferences: bool) -> None:
    # Given a group of which the first completion is not fed and the last not trained
    group = max(groups, key=lambda g: len(g.completions))
    group = compared([group])[0] if preferences else group
    size = len(group.completions)
    assert size > 2
    keep = [True] * (size - 2) + [False]
    one = Item.of(group, [False] + [True] * (size - 1), keep, [0.5] * (size - 1), idle=False)
    logprob_T = -torch.ones(one.fed.tokens)
    tokens = Tokens(logprob_T=logprob_T, entropy_T=-logprob_T, anchor_T=None, reference_T=None)
    seen = feed.objective_batch([one], tokens, Sizes.of([one]), own_anchor=False, kernels="torch")
    assert seen.group_offsets.tolist() == [0, size - 1]
    assert seen.length_N.tolist() == [len(c.token_ids) for c in group.completions[1:]]
    assert (seen.completions, seen.groups) == (size - 2, 1)
    assert seen.keep_N.tolist() == keep
    assert seen.target_N is not None
    if preferences:
        assert seen.rewards_N is None
        assert seen.preferences is not None
        assert group.preferences is not None
        assert torch.equal(seen.preferences[0], torch.from_numpy(group.preferences[1:, 1:]))
    else:
        assert seen.preferences is None
        assert seen.rewards_N is not None
        assert group.rewards is not None
        assert torch.equal(seen.rewards_N, torch.from_numpy(group.rewards[1:]))


def test_a_completion_that_no_micro_batch_holds_is_told_once(
    groups: list[Group], caplog: pytest.LogCaptureFixture
) -> None:
    items, config = [item(groups[0])], settings(micro_batch_tokens=3).learner
    for _ in range(2):
        feed.schedule(items, "completion", config, Solo(), "packed", own_anchor=False)
    (told,) = caplog.messages
    assert "longer than learner.micro_batch_tokens = 3" in told
