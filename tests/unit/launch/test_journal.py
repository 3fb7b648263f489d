"""Events of the learner, read once and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sppo.launch.journal import Journal, describe
from sppo.transport import codec
from sppo.transport.memory import MemoryBroker
from sppo.types import Member


def test_events_from_now_on_are_read_once_and_kept_but_for_steps(tmp_path: Path) -> None:
    broker = MemoryBroker()

    def report(**event: Any) -> None:
        broker.mailbox.send("metrics", codec.pack(event))

    report(kind="phase", phase="before")
    journal = Journal(tmp_path, broker.mailbox)
    report(kind="phase", phase="training")
    report(kind="step", record={})
    assert [e["kind"] for e in journal.news()] == ["phase", "step"]
    assert journal.news() == []
    journal.write({"kind": "restart", "text": "a"})
    kept = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [e["kind"] for e in kept] == ["phase", "restart"]
    assert all(e["time"] > 0 for e in kept)


def test_members_are_told_by_name() -> None:
    found = describe([Member(name="a-0", role="a", life="x", host="west", address="somewhere")])
    told = {"role": "a", "life": "x", "host": "west", "applied": "", "progress": 0, "tokens": 0}
    work = {"busy_s": 0.0, "ready_s": 0.0, "in_hand": 0, "scoring": 0, "refusals": 0}
    assert found == {"a-0": told | work}
