"""What a scorer's service has done, for /healthz and as Prometheus reads it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sppo.metrics import BusyClock

OUTCOMES = ("scored", "refused", "later")
"""A group was scored, could not be, or was told to come later."""
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends of the histogram's buckets, in seconds."""


class Meter:
    """Counts groups and times them.

    with meter.group():      # in hand
        ...
        meter.count("scored")
    """

    def __init__(self, clock: BusyClock) -> None:
        self._clock = clock
        self.in_hand = 0
        self.groups = dict.fromkeys(OUTCOMES, 0)
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._seconds = 0.0

    @property
    def answered(self) -> int:
        return sum(self.groups.values())

    @contextmanager
    def group(self) -> Iterator[None]:
        """While a group is in hand."""
        begun = time.monotonic()
        self.in_hand += 1
        try:
            with self._clock.work():
                yield
        finally:
            took_s = time.monotonic() - begun
            self.in_hand -= 1
            self._seconds += took_s
            self._buckets[bisect_left(BUCKETS_S, took_s)] += 1

    def count(self, outcome: str) -> None:
        self.groups[outcome] += 1

    def health(self, scorer: str) -> dict[str, str | int | float]:
        return {
            "scorer": scorer,
            "scored": self.groups["scored"],
            "in_hand": self.in_hand,
            "busy_s": self._clock.busy_s,
            "ready_s": self._clock.ready_s,
        }

    def text(self, own: Mapping[str, float] | None = None) -> str:
        """In the text format of Prometheus, version 0.0.4; with what the scorer counts itself."""
        lines = _head("groups_total", "counter", "Groups by what became of them.")
        lines += [
            f'sppo_scorer_groups_total{{outcome="{name}"}} {n}' for name, n in self.groups.items()
        ]
        lines += _head("in_hand", "gauge", "Groups that are being scored or wait for their turn.")
        lines.append(f"sppo_scorer_in_hand {self.in_hand}")
        lines += _head("busy_seconds_total", "counter", "Seconds with a group in hand.")
        lines.append(f"sppo_scorer_busy_seconds_total {self._clock.busy_s:.6f}")
        lines += _head("ready_seconds_total", "counter", "Seconds since the service was ready.")
        lines.append(f"sppo_scorer_ready_seconds_total {self._clock.ready_s:.6f}")
        lines += _head(
            "group_seconds", "histogram", "Seconds from a group's arrival to its answer."
        )
        if own:
            lines[:0] = _head("own_total", "counter", "What the scorer counts itself.") + [
                f'sppo_scorer_own_total{{name="{_label(name)}"}} {n:.15g}'
                for name, n in own.items()
            ]
        total = 0
        for end, n in zip([*map(str, BUCKETS_S), "+Inf"], self._buckets, strict=True):
            total += n
            lines.append(f'sppo_scorer_group_seconds_bucket{{le="{end}"}} {total}')
        lines.append(f"sppo_scorer_group_seconds_sum {self._seconds:.6f}")
        lines.append(f"sppo_scorer_group_seconds_count {total}")
        return "\n".join([*lines, ""])


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP sppo_scorer_{name} {what}", f"# TYPE sppo_scorer_{name} {kind}"]
