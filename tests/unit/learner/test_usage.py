"""Busy shares and where the time went, from `begin` on."""

from __future__ import annotations

import time

import pytest

from sppo.learner.usage import Usage
from sppo.transport.memory import MemoryBroker
from sppo.types import Member


def test_shares_are_of_the_time_since_begin_and_averaged_over_a_role() -> None:
    broker = MemoryBroker()

    def say(name: str, busy_s: float, ready_s: float) -> None:
        member = Member(
            name=name, role="generator", life=name, busy_s=busy_s, ready_s=ready_s, world_size=1
        )
        broker.registry.heartbeat(member, 60)

    usage = Usage(broker.registry)
    say("a", 10, 10)  # busy all along before
    usage.begin(3)
    say("a", 11, 14)
    say("b", 3, 4)
    # A quarter of a's new seconds, three quarters of b's
    assert usage.shares()["generator"] == pytest.approx(0.5)


def test_only_the_learners_own_work_makes_it_busy() -> None:
    usage = Usage(MemoryBroker().registry)
    with usage.on("wait") as waiting:
        time.sleep(0.02)
    assert waiting.seconds >= 0.02
    assert usage.shares() == {"learner": 0.0}
    with usage.working("train"):
        time.sleep(0.02)
    assert 0 < usage.shares()["learner"] < 1
    by_step = usage.by_step(2)
    assert by_step.keys() == {"step", "wait", "train", "rest"}
    assert by_step["wait"] == pytest.approx(0.01, abs=0.009)
    assert usage.by_step(0) == {}
