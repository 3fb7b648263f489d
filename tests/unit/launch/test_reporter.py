"""What is shown, and what is kept of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from sppo.launch.progress import Progress
from sppo.launch.reporter import Reporter
from sppo.types import Member


class Journal:
    def __init__(self, *events: dict[str, Any]) -> None:
        self.events = list(events)
        self.written: list[dict[str, Any]] = []

    def news(self) -> list[dict[str, Any]]:
        found, self.events = self.events, []
        return found

    def write(self, event: dict[str, Any]) -> None:
        self.written.append(event)


def reporter(folder: Path) -> tuple[Reporter, io.StringIO]:
    shown = io.StringIO()
    made = Reporter(folder, Progress(10, shown))
    made.about = lambda: {"restarts": {"scorer-0": 1}}
    return made, shown


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return found


def test_what_is_told_is_shown_and_an_event_once_there_is_a_journal(tmp_path: Path) -> None:
    made, shown = reporter(tmp_path)
    made.tell("restart", "before", role="a")
    journal: Any = Journal()
    made.journal = journal
    made.tell("restart", "after", role="a")
    assert shown.getvalue() == "before\nafter\n"
    assert journal.written == [{"kind": "restart", "text": "after", "role": "a"}]


def test_the_status_is_renewed_with_who_is_there(tmp_path: Path) -> None:
    made, _ = reporter(tmp_path)
    made.status("starting")
    assert status(tmp_path)["phase"] == "starting"
    made.depths = lambda: {"leased": 3}
    made.saw([Member(name="scorer-0", role="scorer", life="a", address="")])
    found = status(tmp_path)
    assert set(found["members"]) == {"scorer-0"}
    assert found["depths"] == {"leased": 3}
    assert (found["by"], found["restarts"]) == ("up", {"scorer-0": 1})
    assert found["peak_memory_mb"] > 0


def test_the_learners_events_are_shown(tmp_path: Path) -> None:
    made, shown = reporter(tmp_path)
    journal: Any = Journal({"kind": "resume", "step": 3})
    made.journal = journal
    assert made.news() == [{"kind": "resume", "step": 3}]
    assert made.news() == []
    assert "resuming after step 3" in shown.getvalue()


def test_the_summary_is_the_outcome_with_what_the_supervisor_saw(tmp_path: Path) -> None:
    made, _ = reporter(tmp_path)
    summary = made.summarise({"finished": True}, {"scorer-0": 2})
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["finished"]
    assert summary["restarts"] == {"scorer-0": 2}
    assert "peak_memory_mb" in summary
