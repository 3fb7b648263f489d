"""What a person sees while a run is up: one live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from sppo.evaluation import records
from sppo.launch.words import SHOWN, Words, counted

log = logging.getLogger(__name__)

RATE_WINDOW = 10
SAVING_SAID_S = 10.0
"""Between two lines about a checkpoint that is waited for."""


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the program here."""
        raise


class Progress:
    """Follows the events of a run.

    with Progress(steps=60) as progress:
        progress.event({"kind": "phase", "phase": "training"})
        progress.members(broker.registry.members())
        progress.state()          # the same as numbers, for status.json
    """

    def __init__(
        self, steps: int, file: TextIO | None = None, takes: Mapping[str, str] | None = None
    ) -> None:
        """`file` is where to show it, else standard output; `takes` is what a phase may take."""
        self._takes = {phase: f" ({words})" for phase, words in (takes or {}).items()}
        self._since = time.monotonic()
        """When this phase began."""
        self._console: Console = _Terminal(file=file)
        self._live: Live | None = None
        self._steps = steps
        self._words = Words()
        self._phase = "starting"
        self._step = 0
        self._last: dict[str, Any] = {}
        self._held_out: dict[str, Any] = {}
        """The record of the newest evaluation."""
        self._warning = ""
        """The newest."""
        self._saving_said = 0.0
        """How long a checkpoint had been written when that was last said."""
        self._step_ends: deque[float] = deque(maxlen=RATE_WINDOW + 1)
        self._tokens: deque[tuple[float, int]] = deque(maxlen=15)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                refresh_per_second=2,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._words.due(all_of_it=True):
            self.note(line)
        if self._live is not None:
            with self._while_there():
                self._live.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        with self._while_there():
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def _while_there(self) -> Iterator[None]:
        """A terminal or a pipe that is gone does not end the run, which is in the run directory all
        the same.
        """
        try:
            yield
        except OSError as error:
            log.warning("nothing is shown from here on: %s", error)
            self._live = None
            self._console = Console(file=Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as this process

    def event(self, event: dict[str, Any]) -> None:
        """Take in what the learner reports."""
        kind = event["kind"]
        if kind == "phase":
            phase = event["phase"]
            if phase != self._phase:
                self._since = time.monotonic()
                if not (self._live or phase == "training"):
                    self.note(f"{phase}{self._takes.get(phase, '')} ...")
            self._phase, self._saving_said = phase, 0.0
        elif kind == "saving":
            self._take_saving(event)
        elif kind == "waiting":
            self._phase = event["text"]
            if self._live is None:
                self.note(event["text"])
        elif kind == "resume":
            self._step = event["step"]
            self.note(f"resuming after step {event['step']}")
        elif kind == "parity":
            self.note(f"parity: mean |engine - learner| log-prob {event['mismatch']:.2g} nats "
                      f"(threshold {event['threshold']:g}, {event['compute']})")  # fmt: skip
        elif kind == "eval":
            self._held_out = event["record"]
            took = f", {time.monotonic() - self._since:.0f} s the last time"
            self._takes["evaluating"] = f" ({event['record']['n']} questions{took})"
            self.note(records.describe(event["record"]))
        elif kind == "step":
            self._take_step(event["record"])
        elif kind in SHOWN:
            self._say(kind, event)
        self._draw()

    def _say(self, kind: str, event: dict[str, Any]) -> None:
        """A dead letter or a refusal of `count` groups (1 if not said) for a `reason`, or a warning
        in `text`.
        """
        about = f"{event['uid']}: " if event.get("uid") else ""
        reason = about + (event.get("reason") or event.get("text", ""))
        if kind == "warning":
            self._warning = reason
        line = self._words.say(kind, reason, event.get("count", 1), event.get("topic", ""))
        if line:
            self.note(line)

    def members(self, members: list[Any]) -> None:
        """Take in the heartbeats, for the token rate. Called every second."""
        for line in self._words.due():
            self.note(line)
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
            "held_out_accuracy": self._held_out.get("accuracy"),
            "held_out_win_rate": self._held_out.get("win_rate"),
            "held_out_step": self._held_out.get("step"),
            "staleness_mean": self._last.get("staleness_mean"),
            "mismatch": self._last.get("mismatch"),
            "scorer_counts": self._last.get("scorer_counts"),
            "tokens_per_s": self._token_rate(),
            "seconds_left": self._seconds_left(),
            "events": dict(self._words.counts),
            "last_warning": self._warning or None,
        }

    def _take_saving(self, event: dict[str, Any]) -> None:
        """How far a checkpoint is that is waited for; a line now and then if it takes long."""
        written, nbytes, seconds = event["written"], event["nbytes"], event["seconds"]
        left = f", {_clock(seconds * (nbytes / written - 1))} left" if written else ""
        self._phase = (
            f"writing the checkpoint of step {event['step']}: {written / 1e9:.1f} of "
            f"{nbytes / 1e9:.1f} GB{left}"
        )
        if self._live is None and seconds >= self._saving_said + SAVING_SAID_S:
            self.note(self._phase)
            self._saving_said = seconds

    def _take_step(self, record: dict[str, Any]) -> None:
        self._step, self._last, self._phase = record["step"], record, "training"
        self._step_ends.append(time.monotonic())
        if self._live is None:
            self.note(self._line())

    def _line(self) -> str:
        stale = self._last.get("staleness_mean")
        reward = self._last["reward_mean"]
        parts = [
            f"step {self._step}/{self._steps}",
            f"reward {reward:.3f}"
            if reward is not None
            else "",  # a scorer that compares gives none
            records.short(self._held_out),
            f"staleness {stale:.1f}" if stale is not None else "",
            f"{self._token_rate():.0f} tokens/s",
            counted(self._last.get("scorer_counts")),
            f"{_clock(left)} left" if (left := self._seconds_left()) is not None else "",
        ]
        return "  ".join(p for p in parts if p)

    def _draw(self) -> None:
        if self._live is None:
            return
        table = Table.grid(padding=(0, 2))
        table.add_row("phase", self._phase + self._takes.get(self._phase, ""))
        if self._last:
            table.add_row("now", self._line())
        bar = ProgressBar(total=self._steps, completed=self._step, width=60)
        with self._while_there():
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
