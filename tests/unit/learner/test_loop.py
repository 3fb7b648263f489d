"""The order in which a batch is trained, published, recorded and saved: what a crash between any
two of these may cost hangs on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sppo.errors import SppoError
from sppo.learner import loop
from sppo.learner.gaps import Gaps
from sppo.learner.loop import Learner
from sppo.learner.schedule import Schedule
from sppo.learner.skips import Skips
from sppo.learner.stops import Stopped
from sppo.transport.memory import MemoryBroker
from sppo.types import Group
from tests import makers
from tests.unit.learner.fakes import lineage, records, stops

QUIET = {"effective_sample_size": 1.0, "truncated_share": 0.0}


class World:
    """Everything around the loop: notes what is done, in order."""

    probe = None
    doubtful = False
    gaps = Gaps.join([])

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        base = {"steps": 4, "groups_per_step": 2, "mini_batches": 2, "checkpoint_every": 2}
        config = makers.training(**base | settings)
        self.done: list[str] = []
        self.flaw = ""
        self.broker = MemoryBroker()
        self.records = records(config, self.broker, folder)
        self.line = lineage(config, folder / "c", broker=self.broker)
        self.line.begin()
        monkeypatch.setattr(loop, "point", lambda label: self.done.append(label))
        metrics: Any = self.records._metrics
        monkeypatch.setattr(metrics, "append", lambda record: self.done.append("record"))
        world: Any = self
        self.learner = Learner(
            schedule=Schedule.of(config), lineage=self.line, trainer=world, queue=world,
            batches=world, skips=Skips(3), fleet=world, evaluation=world, parity=world,
            records=self.records, notes=world, saving=world,
            stops=stops(self.broker),
            wishes=world,
        )  # fmt: skip

    def note(self, what: str) -> None:
        self.done.append(what)

    # trainer
    def train(self, groups: Sequence[Group], version: Any, published: Any) -> Iterator[Any]:
        for i in (1, 2):
            self.note("step")
            flaw = self.flaw if i == 2 else None
            uids = [f"train-{i - 1}"]
            yield QUIET | {"step": version.n + i, "skipped": flaw, "tickets": uids}

    # queue
    def use(self, groups: list[Group]) -> None:
        self.note("use")

    def bury(self, reasons: dict[str, str]) -> None:
        if reasons:
            self.note(f"bury {reasons}")

    # batches
    def next(self) -> list[Group]:
        return [makers.group("train-0"), makers.group("train-1")]

    def admit(self) -> None:
        self.note("admit")

    # saving
    def settle(self) -> None:
        self.note("settle")

    def begin(self) -> None:
        self.note("save")

    def reconcile(self, n: int) -> None:
        self.note("reconcile")

    def waiting(self) -> list[Group]:
        return []

    # wishes
    def heed(self) -> None:
        self.note("heed")

    # notes
    def batch(self, groups: list[Group], version: Any, published: Any) -> None:
        self.note("keep groups")

    def steps(self, steps: Any, groups: list[Group]) -> None:
        self.note("keep samples")

    # fleet
    def await_members(self) -> None:
        self.note("await members")

    @contextmanager
    def asleep(self, phase: str) -> Iterator[None]:
        self.note(phase)
        yield
        self.note("awake")

    def publish(self, line: Any) -> float:
        self.note(f"publish {line.published.n}")
        return 1.0

    # evaluation and parity
    def run(self, line: Any) -> None:
        self.note("evaluate")

    def check_first(self, groups: Any, line: Any) -> None:
        self.note("check parity")

    def finish_probe(self, waiting: Any, line: Any) -> None:
        """None is begun."""

    def start_probe(self, line: Any) -> None:
        self.note("start probe")

    def judge(self, gaps: Gaps, step: int) -> None:
        self.note("judge")


def test_a_batch_is_used_before_it_is_published_and_recorded_before_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.learner.batch()
    turn = ["training", "step", "step", "awake"]
    taken = ["heed", "settle", "keep groups", *turn, "learner.step.taken", "use", "keep samples"]
    after = ["publish 2", "record", "record", "learner.recorded", "judge", "admit"]
    assert world.done == [*taken, *after, "save"]


def test_a_run_begins_with_weights_and_tickets_and_ends_with_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch, steps=2)
    world.learner.run()
    begin = ["await members", "publish 0", "reconcile", "evaluate", "admit", "check parity"]
    assert world.done[:6] == begin
    # What is asked for in the last batch is done before the end
    assert world.done[-4:] == ["admit", "evaluate", "heed", "evaluate"]
    assert world.line.n == 2


def test_a_stop_in_the_sync_leaves_the_steps_used_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)

    def stop(line: Any) -> float:
        raise Stopped

    monkeypatch.setattr(world, "publish", stop)
    with pytest.raises(Stopped):
        world.learner.batch()
    assert world.done[7:] == ["learner.step.taken", "use", "keep samples", "record", "record"]
    assert world.line.n == 2


def test_groups_of_a_skipped_step_are_given_up_and_too_many_in_a_row_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.flaw = "the gradient norm is nan"
    world.learner.batch()
    assert "bury {'train-1': 'step 2: the gradient norm is nan'}" in world.done
    monkeypatch.setattr(world.learner.skips, "_most", 1)
    with pytest.raises(SppoError, match="look at the rewards"):
        world.learner.batch()
    # What was taken is recorded, and what was not is given up, before the run ends
    assert world.done[-3:] == ["record", "record", "learner.recorded"]
