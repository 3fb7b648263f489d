"""Tickets of a run that is over, counted from its checkpoint, its metrics and its broker."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sppo.chaos import audit as module
from sppo.chaos.audit import examine, orphans
from sppo.launch import run_dir as run_dirs
from sppo.learner.ledger import Ledger
from sppo.metrics import JsonLines
from sppo.tasks.tickets import training_uid


class Tickets:
    def __init__(self, dead: dict[str, str]) -> None:
        self.dead = dead

    def dead_letters(self) -> list[Any]:
        return [SimpleNamespace(uid=u, reason=r, stream="train") for u, r in self.dead.items()]


def broker(dead: dict[str, str]) -> Any:
    return SimpleNamespace(tickets=Tickets(dead), leftovers=lambda: ["open tickets 1"])


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two steps of three tickets each by the checkpoint, and one more that it does not cover."""
    ledger = Ledger()
    while ledger.next_index < 6:
        ledger.issue()
    last = SimpleNamespace(state={"ledger": ledger.state()}, step=2)
    monkeypatch.setattr(module.checkpoint, "newest", lambda _: last)
    metrics = JsonLines(tmp_path / "metrics.jsonl")
    for step, numbers in ((1, [0, 1, 1]), (2, [2, 3]), (3, [5])):
        metrics.append({"step": step, "tickets": [training_uid(i) for i in numbers]})
    return tmp_path


def test_each_ticket_is_trained_once_or_given_up_with_a_reason(run_dir: Path) -> None:
    dead = {training_uid(4): ""}
    found = examine(run_dir, broker(dead), finished=True)
    assert (found.issued, found.trained) == (6, 4)
    assert found.twice == [training_uid(1)]
    assert found.lost == [training_uid(5)]  # the step after the checkpoint does not count
    assert (found.dead, found.dead_unexplained) == (dead, [training_uid(4)])
    assert found.leftovers == ["open tickets 1"]


def test_of_a_run_that_goes_on_only_what_is_settled_can_be_lost(run_dir: Path) -> None:
    found = examine(run_dir, broker({training_uid(4): "refused"}), finished=False)
    assert (found.lost, found.dead_unexplained, found.leftovers) == ([], [], [])


def test_a_process_that_was_left_is_an_orphan(tmp_path: Path) -> None:
    run_dirs.write_pid(tmp_path, "scorer-0")  # this one, which lives
    assert len(orphans(tmp_path)) == 1
