"""What a person sees while a run is up: one live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

RATE_WINDOW = 10


class Progress:
    """Follows the events of a run.

    with Progress(steps=60) as progress:
        progress.event({"kind": "phase", "phase": "training"})
        progress.members(broker.members())
        progress.state()          # the same as numbers, for status.json
    """

    def __init__(self, steps: int, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live: Live | None = None
        self._steps = steps
        self._phase = "starting"
        self._step = 0
        self._last: dict[str, Any] = {}
        self._accuracy: float | None = None
        self._accuracy_before: float | None = None
        self._step_ends: deque[float] = deque(maxlen=RATE_WINDOW + 1)
        self._tokens: deque[tuple[float, int]] = deque(maxlen=15)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False)

    def event(self, event: dict[str, Any]) -> None:
        """Take in what the learner reports."""
        kind = event["kind"]
        if kind == "phase":
            if event["phase"] != self._phase and not (self._live or event["phase"] == "training"):
                self.note(f"{event['phase']} ...")
            self._phase = event["phase"]
        elif kind == "resume":
            self._step = event["step"]
            self.note(f"resuming after step {event['step']}")
        elif kind == "parity":
            self.note(f"parity: mean |engine - learner| log-prob {event['mismatch']:.2g} nats "
                      f"(threshold {event['threshold']:g}, {event['compute']})")  # fmt: skip
        elif kind == "eval":
            record = event["record"]
            self._accuracy = record["accuracy"]
            if self._accuracy_before is None:
                self._accuracy_before = record["accuracy"]
            self.note(f"held-out accuracy after step {record['step']}: {record['accuracy']:.3f} of {record['n']}")
        elif kind == "step":
            self._take_step(event["record"])
        self._draw()

    def members(self, members: list[Any]) -> None:
        """Take in the heartbeats, for the token rate."""
        tokens = sum(m.tokens for m in members)
        if self._tokens and tokens < self._tokens[-1][1]:
            self._tokens.clear()  # a generator left: its tokens no longer count
        self._tokens.append((time.monotonic(), tokens))
        self._draw()

    def state(self) -> dict[str, Any]:
        """Everything shown, as numbers."""
        return {
            "phase": self._phase,
            "step": self._step,
            "steps": self._steps,
            "reward_mean": self._last.get("reward_mean"),
            "held_out_accuracy": self._accuracy,
            "staleness_mean": self._last.get("staleness_mean"),
            "mismatch": self._last.get("mismatch"),
            "tokens_per_s": self._token_rate(),
            "seconds_left": self._seconds_left(),
        }

    def _take_step(self, record: dict[str, Any]) -> None:
        self._step, self._last = record["step"], record
        self._step_ends.append(time.monotonic())
        if self._live is None:
            self.note(self._line())

    def _line(self) -> str:
        stale = self._last.get("staleness_mean")
        reward = self._last["reward_mean"]
        parts = [
            f"step {self._step}/{self._steps}",
            f"reward {reward:.3f}" if reward is not None else "",  # a scorer that compares gives none
            f"held-out {self._accuracy:.3f}" if self._accuracy is not None else "",
            f"staleness {stale:.1f}" if stale is not None else "",
            f"{self._token_rate():.0f} tokens/s",
            f"{_clock(left)} left" if (left := self._seconds_left()) is not None else "",
        ]
        return "  ".join(p for p in parts if p)

    def _draw(self) -> None:
        if self._live is None:
            return
        table = Table.grid(padding=(0, 2))
        table.add_row("phase", self._phase)
        if self._last:
            table.add_row("now", self._line())
        bar = ProgressBar(total=self._steps, completed=self._step, width=60)
        self._live.update(Group(table, bar))

    def _token_rate(self) -> float:
        if len(self._tokens) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._tokens[0], self._tokens[-1]
        return (n1 - n0) / max(1e-9, t1 - t0)

    def _seconds_left(self) -> float | None:
        if len(self._step_ends) < 2:
            return None
        each = (self._step_ends[-1] - self._step_ends[0]) / (len(self._step_ends) - 1)
        return each * (self._steps - self._step)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
