"""Posts, and what the run expects of each."""

from __future__ import annotations

import time

from sppo import config
from sppo.launch.roster import Post, Roster
from sppo.launch.verdicts import Who


def roster(generators: int = 2) -> Roster:
    run = config.load("quickstart", environment=False)
    made = Roster()
    made.staff("generator", generators, run)
    made.staff("learner", 1, run)
    return made


def test_a_post_is_a_newcomer_until_it_works_and_a_leaver_once_it_was_asked() -> None:
    post = Post(role="generator", config=config.load("quickstart", environment=False))
    assert post.who is Who.WORKER
    post.newcomer = True
    assert post.who is Who.NEWCOMER
    post.leave_by = time.monotonic()
    assert post.who is Who.LEAVER
    assert roster()["learner-0"].who is Who.LEARNER


def test_those_that_stay_are_in_order_of_their_numbers() -> None:
    found = roster(11)
    found["generator-3"].leave_by = 0.0
    assert found.staying("generator") == [f"generator-{i}" for i in range(11) if i != 3]
    assert found.leaving() == ["generator-3"]
    assert found.free_names("generator", 2) == ["generator-11", "generator-12"]
    del found["generator-3"]
    assert found.free_names("generator", 2) == ["generator-3", "generator-11"]
    assert found.free_names("generator", 0) == []


def test_who_is_due_and_who_runs() -> None:
    found, now = roster(), time.monotonic()
    found["generator-0"].due = now - 1
    found["generator-1"].due = now + 100
    found["learner-0"].started_at = now
    assert found.due() == ["generator-0"]
    assert found.started() == {"learner-0": now}


def test_a_learner_that_starts_again_waits_for_as_many_as_there_are_to_be() -> None:
    found = roster()
    found.expect("generator", 5)
    assert found.config.generator.replicas == 5
    assert found["generator-0"].config.generator.replicas != 5
