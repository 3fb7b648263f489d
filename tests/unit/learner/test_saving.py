"""Checkpoints while training goes on: what is waited for, told, and settled."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from sppo.errors import SppoError
from sppo.learner import saving as module
from sppo.learner.ledger import Ledger
from sppo.learner.saving import Saving
from sppo.transport.memory import MemoryBroker
from tests import makers
from tests.unit.learner.fakes import events, lineage, records


class World:
    """A life whose checkpoints become visible when they are let through."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = makers.training(steps=8)
        self.broker = MemoryBroker()
        self.line = lineage(config, folder, broker=self.broker)
        self.line.begin()
        self.let = threading.Event()
        self.settled: list[Ledger] = []
        self.error = ""
        monkeypatch.setattr(module, "LOOK_S", 0.005)
        monkeypatch.setattr(self.line._broker, "confirm_epoch", self.confirm)
        queue: Any = self
        self.saving = Saving(self.line, queue, records(config, self.broker, folder))

    def confirm(self) -> None:
        if threading.current_thread() is threading.main_thread():
            return  # before it begins
        self.let.wait(30)
        if self.error:
            raise SppoError(self.error)

    def settle(self, covered: Ledger) -> None:
        self.settled.append(covered)

    def use(self) -> None:
        self.line.ledger.use([f"train-{self.line.ledger.issue():09d}"])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_what_a_checkpoint_covers_is_settled_once_it_is_durable(world: World) -> None:
    world.use()
    world.line.advance(2)
    world.saving.begin()
    world.use()
    world.saving.settle()
    assert not world.settled
    world.let.set()
    world.saving.finish()
    assert [ledger.trained for ledger in world.settled] == [1]
    (told,) = events(world.broker, "checkpoint")
    assert (told["step"], told["nbytes"] > 0) == (2, True)
    assert 0 <= told["held_s"] <= told["written_s"]
    assert [e["phase"] for e in events(world.broker, "phase")] == ["saving", "training"]


def test_a_second_one_waits_for_the_first_and_the_same_state_is_saved_once(world: World) -> None:
    world.line.advance(2)
    world.saving.begin()
    world.saving.begin()
    world.line.advance(4)
    threading.Timer(0.2, world.let.set).start()
    world.saving.begin()
    assert [e["step"] for e in events(world.broker, "checkpoint")] == [2]
    world.saving.finish()
    first, second = events(world.broker, "checkpoint")
    assert second["step"] == 4
    assert second["held_s"] >= 0.19 > first["held_s"]
    assert len(world.settled) == 2


def test_whoever_waits_for_it_is_told_how_far_it_is(world: World) -> None:
    world.line.advance(2)
    world.saving.begin()
    threading.Timer(0.02, world.let.set).start()
    world.saving.finish()
    told = events(world.broker, "saving")
    assert told
    assert told[-1].keys() == {"kind", "step", "nbytes", "written", "seconds"}
    assert told[-1]["written"] <= told[-1]["nbytes"]


def test_what_goes_wrong_in_the_thread_ends_the_run_where_it_is_looked_at(world: World) -> None:
    world.error = "no room"
    world.let.set()
    world.line.advance(2)
    world.saving.begin()
    with pytest.raises(SppoError, match="no room"):
        world.saving.finish()
    world.saving.finish()  # there is nothing any more
    assert not world.settled


def test_the_end_of_a_life_waits_for_a_rank_that_writes_and_raises_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.line.advance(2)
    world.saving.begin()
    monkeypatch.setattr(module, "RESCUE_S", 0.01)
    world.saving.rescue()  # one that stands still is left alone
    assert not world.settled
    world.error = "no room"
    world.let.set()
    world.saving.rescue()
    assert not world.settled


def test_an_error_while_the_end_waits_is_told_and_not_raised(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(world.saving, "finish", Mock(side_effect=ValueError("no")))
    world.saving.rescue()
    assert "ValueError: no" in caplog.text
