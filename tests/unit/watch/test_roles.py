"""Heartbeats and depths that bring a warning, and some that must not."""

from __future__ import annotations

from typing import Any

import pytest

from sppo.types import Member
from sppo.watch.roles import Roles
from tests import makers


def roles(**learner: Any) -> Roles:
    config = makers.run_config(learner=learner, broker={"max_bytes": 1000, "max_groups": 100})
    return Roles(config)


def generator(ready: float, busy: float, name: str = "generator-0", **changes: Any) -> Member:
    return Member(name=name, role="generator", life=name, ready_s=ready, busy_s=busy, **changes)


def texts(judged: Any) -> dict[str, str]:
    return {topic: finding.text for topic, finding in judged if finding is not None}


def test_idle_generators_are_named_after_two_minutes() -> None:
    judge = roles()
    assert texts(judge.look([generator(50, 50)], {})) == {}
    assert texts(judge.look([generator(169, 60)], {})) == {}
    found = texts(judge.look([generator(171, 60)], {}))
    assert found["generators idle"].startswith("generators had work for 8% of the last 120 s: ")
    assert "learner.lookahead_steps" in found["generators idle"]


def test_their_time_begins_anew_after_a_judgement_and_after_a_pause() -> None:
    judge = roles()
    dict(judge.look([generator(0, 0)], {}))
    assert "generators idle" in dict(judge.look([generator(200, 190)], {}))
    assert "generators idle" not in dict(judge.look([generator(210, 190)], {}))
    judge.begin()
    assert "generators idle" not in dict(judge.look([generator(400, 190)], {}))


@pytest.mark.parametrize(("busy", "learner"), [(70.0, {}), (10.0, {"lookahead_steps": 0})])
def test_busy_generators_and_the_synchronous_schedule_are_no_news(
    busy: float, learner: dict[str, Any]
) -> None:
    judge = roles(**learner)
    dict(judge.look([generator(0, 0)], {}))
    assert texts(judge.look([generator(130, busy)], {})) == {}


def test_a_life_that_came_later_counts_from_when_it_was_seen() -> None:
    judge = roles()
    dict(judge.look([generator(0, 0)], {}))
    dict(judge.look([generator(100, 90), generator(500, 0, "generator-1")], {}))
    both = [generator(200, 180), generator(600, 90, "generator-1")]
    assert texts(judge.look(both, {})) == {}


def test_a_starving_learner_is_told_apart_from_a_slow_scorer() -> None:
    judge = roles()
    judge.waits([generator(1, 1, in_hand=8, scoring=1)])
    found = texts(judge.starves(0.6, 30))
    assert set(found) == {"learner starves"}
    assert found["learner starves"].startswith(
        "step 30: the learner waited 60% of its time for groups: sampling is the slower side"
    )
    for _ in range(3):
        judge.waits([generator(1, 1, in_hand=8, scoring=6)])
    found = texts(judge.starves(0.6, 40))
    assert set(found) == {"scorer slow"}
    assert "75% of those in hand being with the scorer" in found["scorer slow"]
    judge.waits([generator(1, 1)])
    assert "nothing in hand" in texts(judge.starves(0.6, 50))["learner starves"]


def test_the_synchronous_schedule_is_named_as_the_cause() -> None:
    judge = roles(lookahead_steps=0)
    assert "lookahead_steps = 0" in texts(judge.starves(0.6, 10))["learner starves"]


@pytest.mark.parametrize("waited", [None, 0.0, 0.4])
def test_a_learner_that_waits_now_and_then_is_no_news(waited: float | None) -> None:
    judge = roles()
    judge.waits([generator(1, 1, in_hand=8, scoring=1)])
    assert texts(judge.starves(waited, 10)) == {}


@pytest.mark.parametrize(
    ("depths", "words"),
    [
        ({"bytes": 850}, "the queue has 850 of broker.max_bytes = 1,000"),
        ({"bytes": 10, "queued": 81}, "the queue has 81 of broker.max_groups = 100"),
        ({"bytes": 790, "queued": 70}, ""),
    ],
)
def test_a_queue_near_its_bounds(depths: dict[str, int], words: str) -> None:
    found = texts(roles().look([], depths))
    assert found.get("broker", "").startswith(words)
    assert bool(found) == bool(words)


@pytest.mark.parametrize(("ahead", "found"), [(2.5, True), (1.9, False)])
def test_clocks_that_differ(ahead: float, found: bool) -> None:
    members = [
        generator(1, 1, host="a", ahead_s=-0.2),
        generator(1, 1, "generator-1", host="b", ahead_s=ahead - 0.2),
    ]
    said = texts(roles().look(members, {}))
    assert ("clocks" in said) == found
    if found:
        assert said["clocks"].startswith("the clock of b is 2.5 s ahead of that of a: ")
