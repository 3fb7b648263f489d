"""What a person asks for between two batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sppo import asked
from sppo.errors import ScorerError
from sppo.learner.pulse import Pulse
from sppo.learner.stops import Stopped
from sppo.learner.wishes import Wishes
from sppo.transport.memory import MemoryBroker
from tests import makers
from tests.unit.learner.fakes import events, lineage, records, stops


class World:
    """Notes what is done; `script` is what happens in each round of a pause."""

    def __init__(self, folder: Path, *script: Any) -> None:
        config = makers.training(steps=4)
        self.folder, self.script, self.done = folder, list(script), []
        self.broker = MemoryBroker()
        self.pulse = Pulse(self.broker.registry)
        world: Any = self
        line = lineage(config, folder / "c", broker=self.broker)
        line.begin()
        self.wishes = Wishes(
            folder, line, world, world, world, world, records(config, self.broker, folder),
            stops(self.broker), self.pulse,
        )  # fmt: skip
        line.ledger.issue()

    def receive(self, wait_s: float) -> int:
        self.script.pop(0)()
        return 0

    def meet_newcomers(self, line: Any) -> None:
        self.done.append("meet newcomers")

    def run(self, line: Any) -> None:
        self.done.append("evaluate")

    def begin(self) -> None:
        self.done.append("save")

    def settle(self) -> None:
        self.done.append("settle")

    def phases(self) -> list[str]:
        return [event["phase"] for event in events(self.broker, "phase")]

    def ask(self, wish: str) -> Any:
        return lambda: asked.ask(self.folder, wish)

    def resume(self) -> None:
        asked.withdraw(self.folder, asked.PAUSE)


def test_where_nothing_is_asked_the_run_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.wishes.heed()
    assert (world.done, world.phases(), world.pulse.in_hand) == ([], [], 1)


def test_an_evaluation_and_a_checkpoint_are_made_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask("checkpoint")()
    world.ask("evaluate")()
    world.wishes.heed()
    world.wishes.heed()
    assert world.done == ["evaluate", "save"]
    assert asked.standing(tmp_path) == []


def test_paused_it_lives_on_and_does_what_else_is_asked(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.script = [lambda: None, world.ask("checkpoint"), world.resume]
    world.ask("pause")()
    world.wishes.heed()
    around = ["settle", "meet newcomers"]
    assert world.done == [*around, *around, "save", *around]
    assert world.phases() == ["paused", "paused", "training"]


def test_paused_it_can_be_stopped(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.script = [lambda: world.broker.registry.request_stop("learner", "interrupted")]
    world.ask("pause")()
    with pytest.raises(Stopped):
        world.wishes.heed()
    assert asked.standing(tmp_path) == ["pause"]


def test_stopped_it_does_not_begin_paused_the_next_time(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask("pause")()
    world.ask("evaluate")()
    world.wishes.drop()
    assert asked.standing(tmp_path) == []


def test_a_wish_that_cannot_be_taken_away_is_done_once_and_ends_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.ask("checkpoint")()

    def refuse(run_dir: Path, *wishes: str) -> None:
        raise PermissionError(13, "Permission denied", str(run_dir / "asked" / wishes[0]))

    monkeypatch.setattr(asked, "withdraw", refuse)
    world.wishes.heed()
    world.wishes.heed()
    assert world.done == ["save"]
    assert "checkpoint: asked for no more" in caplog.text


def test_the_folder_of_wishes_is_the_learners_own(tmp_path: Path) -> None:
    World(tmp_path)
    assert (tmp_path / "asked").is_dir()


def test_a_wish_that_fails_is_not_tried_again_by_the_next_life(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run = lambda line: (_ for _ in ()).throw(ScorerError("nothing is scored"))  # type: ignore[method-assign]
    world.ask("evaluate")()
    with pytest.raises(ScorerError):
        world.wishes.heed()
    assert asked.standing(tmp_path) == []
