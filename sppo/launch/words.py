"""What goes wrong in a run that goes on, in few words: each reason once, then how often it came
back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sppo.config import RunConfig

AGAIN_S = 30.0
"""Shortest time between two lines about the same thing."""
REASONS = 10
"""Different reasons of a kind that are shown; more are counted together."""
LONGEST = 300

SHOWN = {"dead": "given up", "refusal": "refused, tried again", "warning": "warning"}
"""Kinds of events, and how a line about one begins."""
_VARIABLE = re.compile(r"\d+|[0-9a-f]{8,}")


@dataclass(slots=True)
class _Told:
    reason: str
    at: float
    more: int = 0


class Words:
    """line = words.say("dead", "train-000000012: no answer"); lines = words.due()"""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], _Told] = {}
        self.counts = dict.fromkeys(SHOWN, 0)
        """How often each kind happened."""

    def say(self, kind: str, reason: str, count: int = 1, topic: str = "") -> str:
        """The line to show now; empty where it was said before: this topic, or these words but for
        their numbers.
        """
        self.counts[kind] += count
        reason = (reason.splitlines() or [""])[0][:LONGEST]
        key = (kind, topic or _VARIABLE.sub("#", reason))
        if key not in self._told and sum(k == kind for k, _ in self._told) >= REASONS:
            key, reason = (kind, ""), "for other reasons, which are in events.jsonl"
        told = self._told.get(key)
        if told is not None:
            told.more += count
            told.reason = reason  # the newest, as its numbers may have changed
            return ""
        self._told[key] = _Told(reason, self._clock(), count - 1)
        return f"{SHOWN[kind]}: {reason}"

    def due(self, *, all_of_it: bool = False) -> list[str]:
        """Lines about what has come back since it was shown, at intervals."""
        lines = []
        for (kind, _), told in self._told.items():
            if told.more and (all_of_it or self._clock() - told.at >= AGAIN_S):
                times = "once more" if told.more == 1 else f"{told.more} more times"
                lines.append(f"{SHOWN[kind]} {times}: {told.reason}")
                told.at, told.more = self._clock(), 0
        return lines


def takes(config: RunConfig) -> dict[str, str]:
    """What phases of the learner may take, as far as it is known beforehand."""
    most = config.generator.start_timeout_s
    start = f"an engine takes 20 s and more, at most generator.start_timeout_s = {most:.0f} s"
    found = {"waiting for generators": start}
    if config.task.held_out:
        found["evaluating"] = f"{config.task.held_out} questions"
    return found


def counted(counts: Mapping[str, float] | None) -> str:
    """What a scorer has counted, without what is 0: "scorer 1,234 calls, 80 cached"."""
    found = [f"{n:,.15g} {name.replace('_', ' ')}" for name, n in (counts or {}).items() if n]
    return f"scorer {', '.join(found)}" if found else ""
