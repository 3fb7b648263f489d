"""What a run says of itself while it is up: to the person in front of it, in events.jsonl,
roles.jsonl, status.json and summary.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sppo.launch import run_dir as run_dirs
from sppo.launch.attendance import Attendance
from sppo.launch.figures import Figures
from sppo.launch.journal import Journal, describe
from sppo.launch.memory import Peak
from sppo.launch.progress import Progress
from sppo.types import Member


class Reporter:
    """Owner of everything that is shown: the journal, the members as they were last seen, the peak
    of memory.
    """

    def __init__(self, run_dir: Path, progress: Progress) -> None:
        self._run_dir = run_dir
        self._progress = progress
        self._memory = Peak()
        self._attendance = Attendance(run_dir)
        self._members: dict[str, dict[str, Any]] = {}
        self.journal: Journal | None = None
        """Set once there is a broker to follow."""
        self.figures: Figures | None = None
        """What /metrics says."""
        self.about: Callable[[], dict[str, Any]] = dict
        """What else belongs into status.json."""
        self.depths: Callable[[], dict[str, int]] = dict
        """Where tickets and groups are; set once there is a broker."""
        self._depths: dict[str, int] = {}

    def note(self, text: str) -> None:
        """Show a line."""
        self._progress.note(text)

    def tell(self, kind: str, text: str, **fields: Any) -> None:
        """Show a line, and keep it as an event."""
        self.note(text)
        if self.journal is not None:
            self.journal.write({"kind": kind, "text": text, **fields})

    def news(self) -> list[dict[str, Any]]:
        """The learner's events since the last call, shown."""
        assert self.journal is not None
        events = self.journal.news()
        for event in events:
            self._progress.event(event)
            if self.figures is not None:
                self.figures.event(event)
        return events

    def saw(self, members: list[Member]) -> None:
        """Who is there now."""
        self._members, self._depths = describe(members), self.depths()
        self._progress.members(members)
        self._attendance.saw(members)
        self._memory.sample()
        self.status()
        if self.figures is not None:
            self.figures.saw(members, self._depths)

    def status(self, phase: str = "") -> None:
        """Renew status.json."""
        state = self._progress.state() | ({"phase": phase} if phase else {})
        by = {"by": "up", "updated": time.time(), "peak_memory_mb": self._memory.nbytes >> 20}
        seen = {"members": self._members, "depths": self._depths}
        run_dirs.write_status(self._run_dir, state | seen | self.about() | by)

    def summarise(self, outcome: dict[str, Any], restarts: dict[str, int]) -> dict[str, Any]:
        """Keep how the run ended."""
        memory = {"peak_memory_mb": self._memory.nbytes >> 20}
        summary = outcome | memory | {"restarts": restarts}
        run_dirs.write_json(self._run_dir / "summary.json", summary)
        self.status()
        return summary
