"""An evaluation at the published weights: asked once, recorded, and what ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppo.errors import ScorerError, SppoError
from sppo.learner.evaluation import Evaluation
from sppo.learner.refusals import DeadLetters
from sppo.transport.memory import MemoryBroker
from sppo.types import Group
from tests import makers
from tests.unit.learner.fakes import events, lineage, records, stops


class Queue:
    """Answers after `late` looks; each reward is one question's."""

    def __init__(self, rewards: list[float], late: int = 0) -> None:
        self.rewards, self.late = rewards, late
        self.names: list[str] = []
        self.held_out = self
        self.dead = DeadLetters()
        self.dead.last = "eval-7: no scorer"

    def start(self, name: str, n: int) -> list[str]:
        self.names.append(name)
        return ["eval-0", "eval-1", "eval-2"]

    def finish_evaluation(self) -> list[Group] | None:
        self.late -= 1
        if self.late >= 0:
            return None
        from dataclasses import replace

        return [
            replace(makers.group(f"eval-{i}", size=1), rewards=np.asarray([r], np.float32))
            for i, r in enumerate(self.rewards)
        ]

    def receive(self, wait_s: float) -> int:
        return 0

    def describe(self) -> str:
        return "nothing is ready"


class Samples:
    """Keeps nothing."""

    def of_evaluation(self, step: int, groups: list[Group]) -> None:
        pass


class Nobody:
    """No generator ever comes."""

    def meet_newcomers(self, line: Any) -> bool:
        return False


def evaluation(queue: Any, folder: Path, **changes: Any) -> tuple[Evaluation, MemoryBroker]:
    settings = makers.run_config(**{"task": {"held_out": 3}} | changes)
    broker, fleet = MemoryBroker(), Nobody()
    told = records(settings, broker, folder)
    asked: Any = (settings, queue, fleet, told, Samples(), stops(broker))
    return Evaluation(*asked), broker


def test_its_record_is_of_the_published_version_and_it_is_not_asked_twice(tmp_path: Path) -> None:
    queue = Queue([1.0, 0.5], late=2)
    asked, broker = evaluation(queue, tmp_path)
    line = lineage(makers.run_config(), tmp_path)
    line.advance(3)  # trained on, not published
    asked.run(line)
    expected = {"step": 0, "accuracy": 0.5, "reward_mean": 0.75, "n": 2, "dead": 1}
    assert line.evaluations == [expected]
    assert [event["record"] for event in events(broker, "eval")] == [expected]
    asked.run(line)
    assert queue.names == [f"{line.version.epoch[:8]}-0"]
    line.publish()
    asked.run(line)
    assert [record["step"] for record in line.evaluations] == [0, 3]


def test_without_questions_nothing_is_asked(tmp_path: Path) -> None:
    queue = Queue([])
    asked, _ = evaluation(queue, tmp_path, task={"held_out": 0})
    asked.run(lineage(makers.run_config(), tmp_path))
    assert queue.names == []


def test_one_that_takes_too_long_or_that_nobody_scores_ends_the_run(tmp_path: Path) -> None:
    line = lineage(makers.run_config(), tmp_path)
    asked, _ = evaluation(Queue([], late=9**9), tmp_path, learner={"batch_timeout_s": 0.01})
    with pytest.raises(SppoError, match=r"step 0 got no group .*learner.batch_timeout_s.*is ready"):
        asked.run(line)
    asked, _ = evaluation(Queue([]), tmp_path)
    with pytest.raises(ScorerError, match="given up; the last, eval-7: no scorer"):
        asked.run(line)
