"""What is known of a run from its directory, renewed by each look."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo import asked
from sppo.launch import run_dir as run_dirs
from sppo.top.tail import Tail
from sppo.watch.steps import waited

KEPT = 1000
"""Steps whose figures are kept."""
WARNINGS = 20
RATE_S = 15.0
"""Over which tokens a second and busy shares are measured."""
LEARNER_STEPS = 10
SAMPLE_BYTES = 8 << 20
TOLD = {
    "warning": "warning", "restart": "restart", "dead": "given up", "refusal": "refused",
    "scale": "scale",
}  # fmt: skip
"""Kinds of events that are shown, and how a line about one begins."""


@dataclass(frozen=True, slots=True)
class Role:
    """One row."""

    name: str
    state: str
    version: str
    """Optimizer step of its weights; empty for a role without weights."""
    tokens_per_s: float | None
    busy: float | None
    """Share of the last `RATE_S` with work in hand."""
    does: str
    """What it has in hand, or waits for."""


class Run:
    """run = Run(run_dir); run.look(); run.roles()"""

    def __init__(self, run_dir: Path) -> None:
        """Raises ConfigError where there is no run."""
        run_dirs.describe(run_dir)
        self.run_dir = run_dir
        self.name = run_dir.resolve().name
        self.status: dict[str, Any] = {}
        self.alive = False
        self.finished = False
        self.asked: list[str] = []
        self.records: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.told: deque[tuple[float, str]] = deque(maxlen=WARNINGS)
        """When, and what: warnings, restarts, dead letters."""
        self.held_out: dict[str, Any] = {}
        """The newest evaluation's record."""
        self.sample: dict[str, Any] | None = None
        self._metrics = Tail(run_dir / "metrics.jsonl")
        self._events = Tail(run_dir / "events.jsonl")
        self._samples = Tail(run_dir / "samples.jsonl", SAMPLE_BYTES)
        self._history: dict[tuple[str, str], deque[tuple[float, Mapping[str, Any]]]] = {}

    def look(self) -> None:
        """Read what is new."""
        with contextlib.suppress(ValueError, OSError):  # a file system shows a rename half done
            self._take_status()
        self.asked = asked.standing(self.run_dir) if self.alive else []
        fresh = self._metrics.records()
        if self._metrics.anew:
            self.records.clear()
        self.records.extend(fresh)
        self._take_events()
        if lines := self._samples.lines():
            self.sample = _sample(lines) or self.sample
        self._remember()

    @property
    def state(self) -> str:
        """The phase of a run that lives; `finished`, `stopped`, or `dead` for one that ended in
        the middle of something.
        """
        phase = str(self.status.get("phase", "starting"))
        if self.alive:
            return phase
        if self.finished:
            return "finished"
        return "stopped" if phase in ("stopped", "done") else "dead"

    def roles(self) -> list[Role]:
        """The learner, then the others by name."""
        members: dict[str, Any] = self.status.get("members") or {}
        order = sorted(members, key=lambda name: (members[name]["role"] != "learner", name))
        return [self._role(name, members[name]) for name in order]

    def buffer(self) -> tuple[int, int, int] | None:
        """Training tickets that are out: (to be leased, with generators, ready to be trained)."""
        members: dict[str, Any] = self.status.get("members") or {}
        depths: dict[str, int] = self.status.get("depths") or {}
        out = sum(m.get("in_hand", 0) for m in members.values() if m["role"] == "learner")
        if not out or not depths:
            return None
        todo, leased = depths["todo"], depths["leased"]
        return todo, leased, max(0, out - todo - leased)

    def curve(self, name: str) -> list[float]:
        """The figures of a metric that are known, oldest first."""
        return [float(r[name]) for r in self.records if isinstance(r.get(name), int | float)]

    def _take_status(self) -> None:
        status = run_dirs.read_json(self.run_dir / "status.json")
        if status is not None:
            self.status = status
        self.alive = run_dirs.alive(self.run_dir)
        summary = None if self.alive else run_dirs.read_json(self.run_dir / "summary.json")
        self.finished = bool(summary and summary.get("finished"))

    def _take_events(self) -> None:
        events = self._events.records()
        if self._events.anew:
            self.told.clear()
        for event in events:
            kind = event.get("kind")
            if kind == "eval":
                self.held_out = event["record"]
            elif kind in TOLD:
                text = event.get("text") or event.get("reason", "")
                self.told.append((event.get("time", 0.0), f"{TOLD[kind]}: {text}"))

    def _remember(self) -> None:
        now, members = float(self.status.get("updated", 0.0)), self.status.get("members") or {}
        lives = {(name, m.get("life", "")): m for name, m in members.items()}
        self._history = {life: self._history.get(life, deque()) for life in lives}
        for life, member in lives.items():
            seen = self._history[life]
            if not seen or seen[-1][0] < now:
                seen.append((now, member))
            while len(seen) > 2 and seen[1][0] <= now - RATE_S:
                seen.popleft()

    def _role(self, name: str, member: Mapping[str, Any]) -> Role:
        role = member["role"]
        if role == "learner":
            return self._learner(name)
        seen = self._history[name, member.get("life", "")]
        (then, before), (now, last) = seen[0], seen[-1]
        ready = last.get("ready_s", 0.0) - before.get("ready_s", 0.0)
        busy = (last.get("busy_s", 0.0) - before.get("busy_s", 0.0)) / ready if ready > 0 else None
        if role == "scorer":
            return Role(name, "up", "", None, busy, "groups" if busy else "waits for groups")
        rate = (last["tokens"] - before["tokens"]) / (now - then) if now > then else None
        version = member["applied"].rpartition(":")[2]
        state = "up" if version else "no weights"
        return Role(name, state, version, rate, busy, _hands(member))

    def _learner(self, name: str) -> Role:
        records = list(self.records)[-LEARNER_STEPS:]
        share = waited(records, len(records)) if len(records) > 1 else None
        phase = str(self.status.get("phase", ""))
        does = phase.removeprefix("the learner has ")
        state = "paused" if phase == "paused" else "up"
        busy = None if share is None else 1 - share
        return Role(name, state, str(self.status.get("step", "")), None, busy, does)


def _hands(member: Mapping[str, Any]) -> str:
    """What a generator is at."""
    scoring = member.get("scoring", 0)
    sampled = member.get("in_hand", 0) - scoring
    parts = [f"samples {sampled}" if sampled > 0 else "", f"{scoring} at scorer" if scoring else ""]
    return ", ".join(part for part in parts if part) or "waits for tickets"


def _sample(lines: Sequence[bytes]) -> dict[str, Any] | None:
    for line in reversed(lines):
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        return found
    return None


def ago(then: float) -> str:
    """How long ago, in words."""
    seconds = max(0, round(time.time() - then))
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7200 else f"{seconds // 3600} h ago"
