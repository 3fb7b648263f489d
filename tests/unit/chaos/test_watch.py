"""What is read off a run's own files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sppo.chaos.watch import Watch


class RunDir:
    """A run directory that is written by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.watch = Watch(folder)

    def status(self, **fields: Any) -> None:
        (self.folder / "status.json").write_text(json.dumps(fields))

    def event(self, after_s: float, kind: str, **fields: Any) -> None:
        record = {"time": time.time() + after_s, "kind": kind, **fields}
        with (self.folder / "events.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def test_only_this_life_of_the_run_counts(run: RunDir) -> None:
    run.event(-100, "phase", phase="training")
    assert not run.watch.training()
    run.event(1, "phase", phase="training")
    assert run.watch.training()
    assert len(run.watch.events()) == 1


def test_a_run_leaves_once_its_steps_are_taken(run: RunDir) -> None:
    assert not run.watch.leaving(10)
    run.status(step=9, phase="saving")
    assert not run.watch.leaving(10)
    run.status(step=10, phase="training")
    assert not run.watch.leaving(10)
    run.status(step=10, phase="exporting")
    assert run.watch.leaving(10)


def test_a_scorer_works_anew_with_another_life_and_a_generator_with_weights(run: RunDir) -> None:
    run.status(members={"scorer-0": {"life": "a", "progress": 3}, "generator-0": {"life": "b"}})
    assert (run.watch.life("scorer-0"), run.watch.progress("scorer-0")) == ("a", 3.0)
    assert not run.watch.works_anew("scorer-0", "a", 0)
    assert run.watch.works_anew("scorer-0", "before", 0)
    assert not run.watch.works_anew("generator-0", "before", 0)
    run.status(members={"generator-0": {"life": "b", "applied": "x:3"}})
    assert run.watch.works_anew("generator-0", "before", 0)
    assert not run.watch.works_anew("scorer-0", "before", 0)  # it is not there


def test_a_learner_works_anew_once_it_has_loaded_its_model_and_published(run: RunDir) -> None:
    run.status(members={"learner-0": {"life": "b"}})
    run.event(1, "sync")
    run.event(2, "phase", phase="loading the model")
    assert not run.watch.works_anew("learner-0", "a", 0)
    run.event(3, "sync")
    assert run.watch.works_anew("learner-0", "a", 0)
    assert not run.watch.works_anew("learner-0", "a", time.time() + 2.5)


def test_the_start_of_an_engine_is_the_newest_lifes(run: RunDir) -> None:
    (run.folder / "logs").mkdir()
    (run.folder / "logs" / "generator-0.log").write_text(
        "2026-01-01 10:00:00,000 INFO x: generator-0 begins in process 1\n"
        "2026-01-01 10:00:09,000 INFO x: engine ready\n"
        "2026-01-01 10:01:00,000 INFO x: generator-0 begins in process 2\n"
        "2026-01-01 10:01:04,500 INFO x: engine ready\n"
    )
    assert run.watch.engine_start_s("generator-0") == 4.5
    assert run.watch.engine_start_s("scorer-0") == 0.0
