"""What cannot be written down is a warning, once."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from sppo.learner.notes import Notes
from sppo.transport.memory import MemoryBroker
from sppo.types import Version
from tests import makers
from tests.unit.learner.fakes import events, records

V = Version(epoch="e1", n=0)


class Kept:
    """All three; of a file that is in `full` nothing can be written."""

    def __init__(self, *full: str) -> None:
        self.full = set(full)
        self.done: list[str] = []

    def keep(self, *_: object) -> None:
        self._write("groups")

    def of_steps(self, *_: object) -> None:
        self._write("samples")

    def of_evaluation(self, *_: object) -> None:
        self._write("answers")

    def _write(self, what: str) -> None:
        if what in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.done.append(what)


@pytest.mark.parametrize(
    ("full", "name", "mend"),
    [
        ("groups", "groups", ", or set learner.keep_groups = 0"),
        ("answers", "samples.jsonl", ", or set learner.keep_samples = 0"),
        ("spans", "spans.jsonl", ""),
    ],
)
def test_the_run_goes_on_without_it(tmp_path: Path, full: str, name: str, mend: str) -> None:
    broker = MemoryBroker()
    others: Any = Kept(full)
    spans: Any = Kept("samples" if full == "spans" else "")
    notes = Notes(
        records=records(makers.training(), broker, tmp_path), kept=others, samples=others,
        spans=spans,
    )  # fmt: skip
    for _ in range(2):
        notes.batch([], V, V)
        notes.steps([], [])
        notes.evaluation(1, [])
    wanted = [what for what in ("groups", "samples", "answers") if what != full]
    assert others.done == 2 * wanted
    (told,) = events(broker, "warning")
    assert told["text"] == (
        f"RUN/{name} was not written: No space left on device: training goes on without it; free "
        f"some disk space{mend}"
    )
