"""What happened in a run: the learner's events from the broker, and the supervisor's own, in
RUN/events.jsonl.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sppo.transport import codec
from sppo.transport.broker import Mailbox
from sppo.types import Member


class Journal:
    """Follows the learner's events from the moment it is made."""

    def __init__(self, run_dir: Path, mailbox: Mailbox) -> None:
        self._path = run_dir / "events.jsonl"
        self._mailbox = mailbox
        self._position = mailbox.tail("metrics")

    def news(self) -> list[dict[str, Any]]:
        """Events since the last call, written down but for steps, which are in metrics.jsonl."""
        events = []
        for position, data in self._mailbox.receive("metrics", self._position, 0):
            self._position = position
            events.append(codec.unpack(data))
            if events[-1]["kind"] != "step":
                self.write(events[-1])
        return events

    def write(self, event: dict[str, Any]) -> None:
        """Add an event with the time."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")


def describe(members: Iterable[Member]) -> dict[str, Any]:
    """Live members for status.json."""
    keys = (
        "role", "life", "host", "applied", "progress", "tokens", "busy_s", "ready_s", "in_hand",
        "scoring", "refusals",
    )  # fmt: skip
    return {m.name: {key: getattr(m, key) for key in keys} for m in members}
