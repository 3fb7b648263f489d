"""What a run says of itself, seen from outside: status.json, events.jsonl, logs, processes."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from sppo.launch import run_dir as run_dirs
from sppo.metrics import read_lines

LEARNER_BEGINS = "loading the model"


class Watch:
    """Looks at one run from the moment it is made; earlier lives of the run do not count."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._since = time.time()

    def events(self) -> list[dict[str, Any]]:
        """What has happened since then."""
        return [e for e in read_lines(self._run_dir / "events.jsonl") if e["time"] >= self._since]

    def training(self) -> bool:
        """Whether this life of the run has all its roles and has begun."""
        return any(e.get("phase") == "training" for e in self.events())

    def leaving(self, steps: int) -> bool:
        """Whether the run has taken its `steps` and is putting its things away."""
        status = self._status()
        over = status.get("step", 0) >= steps
        return over and status.get("phase") in ("saving", "exporting", "done")

    def life(self, role: str) -> str:
        """Names the role's present life; empty while it has none."""
        if role == "broker":
            process = self.process(role)
            if process is None:
                return ""
            # The supervisor renews its status only while the broker answers.
            answered = self._status().get("updated", 0) > process.create_time() + 0.5
            return f"{process.pid} {process.create_time()}" if answered else ""
        return str(self._member(role).get("life", ""))

    def progress(self, role: str) -> float:
        """A number that moves while the role gets on with its work."""
        if role == "broker":
            return float(self._status().get("updated", 0))
        return float(self._member(role).get("progress", 0))

    def works_anew(self, role: str, before: str, since: float) -> bool:
        """Whether another life than `before` does the role's work, by what happened after
        `since`.
        """
        if self.life(role) in ("", before):
            return False
        if role.startswith("learner"):  # it has resumed once it has published its weights
            kinds = [e.get("phase", e["kind"]) for e in self.events() if e["time"] > since]
            return LEARNER_BEGINS in kinds and "sync" in kinds[kinds.index(LEARNER_BEGINS) :]
        if role.startswith("generator"):
            return bool(self._member(role).get("applied", ""))
        return True

    def process(self, role: str) -> psutil.Process | None:
        """The role's process, if it is there."""
        if role != "broker":
            return run_dirs.role_process(self._run_dir, role)
        pid = run_dirs.running(self._run_dir)
        children = psutil.Process(pid).children() if pid is not None else []
        for child in children:
            try:
                if "valkey" in child.name() and child.status() != psutil.STATUS_ZOMBIE:
                    return child
            except psutil.NoSuchProcess:
                continue
        return None

    def engine_start_s(self, role: str) -> float:
        """Seconds from the process' begin to "engine ready", by the newest life's log."""
        if not role.startswith("generator"):
            return 0.0
        log = self._run_dir / "logs" / f"{role}.log"
        text = log.read_text(encoding="utf-8", errors="replace")
        times = [_stamps(text, what) for what in (f"{role} begins in process", "engine ready")]
        return max(0.0, times[1][-1] - times[0][-1]) if all(times) else 0.0

    def _status(self) -> dict[str, Any]:
        return run_dirs.read_json(self._run_dir / "status.json") or {}

    def _member(self, role: str) -> dict[str, Any]:
        found: dict[str, Any] = self._status().get("members", {}).get(role, {})
        return found


def _stamps(text: str, what: str) -> list[float]:
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    found = re.findall(rf"^({stamp}) .*{re.escape(what)}", text, re.MULTILINE)
    return [datetime.strptime(each, "%Y-%m-%d %H:%M:%S,%f").timestamp() for each in found]
