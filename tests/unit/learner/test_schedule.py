"""When a run publishes, evaluates, probes, saves and ends."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.learner.schedule import Schedule
from sppo.types import Group, Version
from tests import makers


def schedule(**changes: Any) -> Schedule:
    base = {"steps": 12, "groups_per_step": 4, "mini_batches": 2, "checkpoint_every": 5}
    config = makers.training(**base | changes)
    evaluation = config.eval.model_copy(update={"every_steps": 4})
    return Schedule.of(config.model_copy(update={"eval": evaluation}))


def test_the_last_step_ends_a_run_and_no_ticket_is_issued_beyond_it() -> None:
    plan = schedule(lookahead_steps=2)
    assert [plan.over(n) for n in (0, 11, 12, 13)] == [False, False, True, True]
    # Batches of four groups, two steps each: three in flight, then as many as are left
    assert [plan.outstanding(n) for n in (0, 6, 8, 10, 12)] == [12, 12, 8, 4, 0]


@pytest.mark.parametrize(
    ("anchor", "published"),
    [("proximal", [2, 4, 6, 8, 10, 12]), ("behavior", [2, 4, 6, 8, 10, 12]),
     ("iteration", [8, 12])],
)  # fmt: skip
def test_an_anchor_says_when_generators_get_weights_and_the_last_step_always(
    anchor: str, published: list[int]
) -> None:
    plan = schedule(anchor=anchor, iteration_steps=8)
    assert [n for n in range(2, 13, 2) if plan.publishes(n - 2, n)] == published


def test_groups_are_stale_by_the_step_in_which_they_would_be_trained() -> None:
    plan = schedule(mini_batches=2)  # two groups in each
    version, published = Version(epoch="e", n=6), Version(epoch="e", n=4)

    def group(n: int, epoch: str = "e") -> Group:
        return makers.group(version=Version(epoch=epoch, n=n))

    def stale(*groups: Group, most: int = 3) -> list[int]:
        found = plan.stale(groups, version, published, most)
        return [i for i, group in enumerate(groups) if any(group is g for g in found)]

    # At steps 6, 6, 7, 7: ages 3, 4, 4, 5
    assert stale(group(3), group(2), group(3), group(2)) == [1, 2, 3]
    # What generators run now is as young as can be; another life's groups have no age
    assert stale(group(4), group(4), group(4), group(0, "f"), most=1) == []
    # In a batch of eight mini-batches are of four: at steps 6 and 7
    assert stale(*[group(3) for _ in range(8)], most=3) == [4, 5, 6, 7]


def test_evaluations_and_checkpoints_come_where_their_multiple_is_crossed() -> None:
    plan = schedule()
    batches = [(n - 2, n) for n in range(2, 13, 2)]
    assert [n for before, n in batches if plan.evaluates(before, n)] == [4, 8, 12]
    # Five is crossed by the third batch, ten by the fifth; the last comes after the evaluation
    assert [n for before, n in batches if plan.saves(before, n)] == [6, 10]


def test_a_reference_is_renewed_after_so_many_iterations_or_never() -> None:
    batches = [(n - 2, n) for n in range(2, 13, 2)]
    plan = schedule(iteration_steps=4, reference_every=1, kl_coef=0.1)
    assert [n for before, n in batches if plan.renews_reference(before, n)] == [4, 8, 12]
    assert not any(schedule().renews_reference(before, n) for before, n in batches)


def test_probes_come_with_evaluations_and_while_in_doubt_but_not_where_snapshots_are_kept() -> None:
    batches = [(n - 2, n) for n in range(2, 13, 2)]
    plan = schedule()
    assert [n for before, n in batches if plan.probes(before, n, doubtful=False)] == [4, 8]
    assert [n for before, n in batches if plan.probes(before, n, doubtful=True)] == [2, 4, 6, 8, 10]
    kept = schedule(anchor="iteration", iteration_steps=4)
    assert not any(kept.probes(before, n, doubtful=True) for before, n in batches)
    # Steps at another temperature than the engines' see nothing to compare
    apart = schedule(anchor="iteration", iteration_steps=4, temperature=0.5, weight="none")
    assert [n for before, n in batches if apart.probes(before, n, doubtful=False)] == [4, 8]


def test_a_batch_of_several_epochs_takes_as_many_more_of_the_steps() -> None:
    # Given twelve steps, two mini-batches and three epochs: two batches of four groups
    plan = schedule(mini_batches=2, epochs=3, lookahead_steps=3)
    assert [plan.outstanding(n) for n in (0, 6, 12)] == [8, 4, 0]
