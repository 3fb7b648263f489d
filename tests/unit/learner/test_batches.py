"""Waiting for a batch: what ends it, what prolongs it, and what is too old for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sppo.errors import SppoError
from sppo.learner import batches as module
from sppo.learner import records as records_module
from sppo.learner.batches import Batches
from sppo.learner.stops import Stopped
from sppo.transport.memory import MemoryBroker
from sppo.types import Group, Member, Version
from tests import makers
from tests.unit.learner.fakes import events, lineage, records, stops

EQUAL = [[0.5, 0.5], [0.5, 0.5]]


class Setting:
    """A queue and a fleet that note what is asked of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        monkeypatch.setattr(module, "WAIT_S", 0)
        config = makers.training(**{"steps": 4, "groups_per_step": 2} | changes)
        self.broker = MemoryBroker()
        self.line = lineage(config, folder / "c")
        self.done: list[Any] = []
        self.batches_in: list[list[Group] | None] = []
        there: Any = self
        self.batches = Batches(
            config, self.line, there, there, records(config, self.broker, folder),
            stops(self.broker),
        )  # fmt: skip

    def batch(self, count: int) -> list[Group] | None:
        return self.batches_in.pop(0) if self.batches_in else None

    def receive(self, wait_s: float) -> int:
        self.done.append("receive")
        return 0

    def admit(self, cap: int, n: int) -> None:
        self.done.append(("admit", cap, n))

    def again(self, groups: list[Group], n: int) -> None:
        self.done.append(("again", [g.uid for g in groups], n))

    def describe(self) -> str:
        return "nothing is ready"

    def waiting(self) -> list[Group]:
        return [makers.group()]

    def meet_newcomers(self, line: Any) -> bool:
        return False

    def names(self) -> str:
        return "none"


def test_tickets_are_for_the_published_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Setting(tmp_path, monkeypatch)
    there.line.advance(3)
    there.batches.admit()
    assert there.done == [("admit", 2, 0)]


def test_a_batch_that_does_not_come_ends_the_run_with_who_was_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Setting(tmp_path, monkeypatch, batch_timeout_s=0.3)
    there.batches_in = [None, None, [makers.group(), makers.group()]]
    assert len(there.batches.next()) == 2
    assert there.done == ["receive", ("admit", 4, 0)] * 2  # dead letters make room
    with pytest.raises(
        SppoError, match=r"no group arrived for 0 s .*generators: none; nothing is ready"
    ):
        there.batches.next()


def test_a_stop_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Setting(tmp_path, monkeypatch)
    there.broker.registry.request_stop("learner", "enough")
    with pytest.raises(Stopped):
        there.batches.next()


def test_groups_older_than_the_limit_are_made_again_counted_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def group(i: int, n: int) -> Group:
        version = Version(epoch=there.line.version.epoch, n=n)
        return makers.group(f"train-{i:09d}", version=version)

    # Given a batch of which one group was sampled three steps ago
    there = Setting(tmp_path, monkeypatch, max_staleness=2)
    there.line.advance(3)
    there.line.publish()
    old, young, newer = group(0, 0), group(1, 1), group(0, 3)
    there.batches_in = [[old, young], [newer, young]]
    # When the learner wants a batch
    groups = there.batches.next()
    # Then that group's ticket is issued again, and its successor is trained
    assert groups == [newer, young]
    assert there.done[0] == ("again", ["train-000000000"], 3)
    assert there.line.ledger.again == 1
    (warning,) = events(there.broker, "warning")
    assert (warning["topic"], "1 groups were older" in warning["text"]) == ("staleness", True)


def test_without_a_limit_no_group_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Setting(tmp_path, monkeypatch)
    there.line.advance(3)
    there.line.publish()
    version = Version(epoch=there.line.version.epoch, n=0)
    there.batches_in = [[makers.group(version=version), makers.group(version=version)]]
    assert len(there.batches.next()) == 2
    assert there.done == []


def test_a_batch_is_filled_up_with_groups_that_have_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def group(i: int, signal: bool) -> Group:
        return makers.group(f"train-{i:09d}", preferences=None if signal else EQUAL)

    # Given batches of 2 with at most 6 groups, of which the first four tell nothing apart
    there = Setting(tmp_path, monkeypatch, refill=3.0)
    come = [group(0, False), group(1, False)]
    monkeypatch.setattr(there, "batch", lambda count: come[:count] if len(come) >= count else None)
    monkeypatch.setattr(
        there, "receive", lambda wait_s: come.append(group(len(come), len(come) > 3)) or 1
    )
    # When the learner wants a batch
    groups = there.batches.next()
    # Then tickets were issued for what was lacking, and all that came is trained
    assert [g.has_signal for g in groups] == [False, False, False, False, True, True]
    assert there.done == [("admit", 6, 0), ("admit", 8, 0)]
    there.batches.admit()
    assert there.done[-1] == ("admit", 4, 0)  # the next batch is as large as any


def test_filling_up_ends_at_its_factor_in_whole_mini_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Setting(tmp_path, monkeypatch, refill=1.9, groups_per_step=4, mini_batches=2)
    asked: list[int] = []
    dull = makers.group("train-000000000", preferences=EQUAL)
    monkeypatch.setattr(there, "batch", lambda count: asked.append(count) or [dull] * count)
    assert len(there.batches.next()) == 6
    assert asked == [4, 6]


def test_for_whom_the_learner_waits_is_said_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Setting(tmp_path, monkeypatch)
    monkeypatch.setattr(records_module, "SAY_S", 0.0)
    for name, in_hand, scoring in (("generator-0", 5, 3), ("generator-1", 1, 1)):
        member = Member(name=name, role="generator", in_hand=in_hand, scoring=scoring)
        there.broker.registry.heartbeat(member, 60)
    there.batches_in = [None, [makers.group(), makers.group()]]
    there.batches.next()
    (said,) = events(there.broker, "waiting")
    assert (said["missing"], said["wanted"]) == (1, 2)
    assert said["text"].endswith(
        "s for 1 of 2 groups: 4 are with the scorer last-number; 2 are being sampled "
        "(generator-0 2)"
    )
