"""An evaluation at the published weights: asked once, recorded, and what ends it."""

from __future__ import annotations

from dataclasses import replace
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
    """Answers after `late` looks; each reward, or chance to win, is one question's."""

    def __init__(self, rewards: list[float], late: int = 0, *, compares: bool = False) -> None:
        self.rewards, self.late, self.compares = rewards, late, compares
        self.names: list[str] = []
        self.asked: list[Any] = []
        self.held_out = self
        self.dead = DeadLetters()
        self.dead.last = "eval-7: no scorer"

    def start(self, name: str, n: int, *, paired: bool, against: Any) -> list[str]:
        self.names.append(name)
        self.asked.append((paired, against))
        return ["eval-0", "eval-1", "eval-2"]

    def finish_evaluation(self) -> list[Group] | None:
        self.late -= 1
        if self.late >= 0:
            return None
        if self.compares:
            return [
                makers.group(f"eval-{i}", preferences=[[0.5, p], [1 - p, 0.5]])
                for i, p in enumerate(self.rewards)
            ]
        return [
            replace(makers.group(f"eval-{i}", size=1), rewards=np.asarray([r], np.float32))
            for i, r in enumerate(self.rewards)
        ]

    def receive(self, wait_s: float) -> int:
        return 0

    def describe(self) -> str:
        return "nothing is ready"


class Unwritten:
    """Keeps nothing."""

    def evaluation(self, step: int, groups: list[Group]) -> None:
        pass


class Base:
    """Base answers in memory."""

    kept: Any = None

    def keep(self, groups: list[Group]) -> None:
        self.kept = {i: group.uid for i, group in enumerate(groups)}

    def read(self) -> Any:
        return self.kept


class Nobody:
    """No generator ever comes."""

    def meet_newcomers(self, line: Any) -> bool:
        return False


def evaluation(queue: Any, folder: Path, **changes: Any) -> tuple[Evaluation, MemoryBroker]:
    settings = makers.run_config(**{"task": {"held_out": 3}} | changes)
    broker, fleet = MemoryBroker(), Nobody()
    told = records(settings, broker, folder)
    asked: Any = (settings, queue, fleet, told, Unwritten(), Base(), stops(broker))
    return Evaluation(*asked), broker


def test_its_record_is_of_the_published_version_and_it_is_not_asked_twice(tmp_path: Path) -> None:
    queue = Queue([1.0, 0.5], late=2)
    asked, broker = evaluation(queue, tmp_path)
    line = lineage(makers.run_config(), tmp_path)
    line.advance(3)  # trained on, not published
    asked.run(line)
    (record,) = line.evaluations
    seen = {name: record[name] for name in ("step", "accuracy", "reward_mean", "n", "dead")}
    assert seen == {"step": 0, "accuracy": 0.5, "reward_mean": 0.75, "n": 2, "dead": 1}
    assert [event["record"] for event in events(broker, "eval")] == [record]
    asked.run(line)
    assert queue.names == [f"{line.version.epoch[:8]}-0"]
    line.publish()
    asked.run(line)
    assert [record["step"] for record in line.evaluations] == [0, 3]
    # The scorer was given two answers once, to see whether it compares
    assert queue.asked == [(True, None), (False, None)]


def test_a_scorer_that_compares_is_asked_about_the_base_models_answers(tmp_path: Path) -> None:
    # Given an evaluation at step 0, whose answers meet themselves
    queue = Queue([0.5, 0.5], compares=True)
    asked, _ = evaluation(queue, tmp_path)
    line = lineage(makers.run_config(), tmp_path)
    asked.run(line)
    # When the next one is due
    line.advance(4)
    line.publish()
    queue.rewards = [1.0, 0.5]
    asked.run(line)
    # Then its tickets carry those answers, and it counts who won
    assert queue.asked == [(True, None), (False, {0: "eval-0", 1: "eval-1"})]
    assert [(r["win_rate"], r["accuracy"]) for r in line.evaluations] == [(0.5, None), (0.75, None)]


def test_a_run_that_was_evaluated_by_accuracy_goes_on_so(tmp_path: Path) -> None:
    queue = Queue([1.0])
    asked, _ = evaluation(queue, tmp_path)
    line = lineage(makers.run_config(), tmp_path)
    line.evaluations.append({"step": 0, "accuracy": 0.5, "n": 1})  # as an older version wrote it
    line.advance(4)
    line.publish()
    asked.run(line)
    assert queue.asked == [(False, None)]


def test_comparisons_that_nobody_could_read_end_the_run(tmp_path: Path) -> None:
    asked, _ = evaluation(Queue([float("nan")], compares=True), tmp_path)
    with pytest.raises(ScorerError, match="compared no answer of the evaluation of step 0"):
        asked.run(lineage(makers.run_config(), tmp_path))


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
