"""Judges the members' heartbeats and the broker's room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sppo.config import RunConfig
from sppo.types import Member
from sppo.watch.said import Finding
from sppo.watch.steps import Judged
from sppo.watch.topics import TOPICS

IDLE_S = 120.0
"""Over which generators are judged: longer than a checkpoint that holds training up."""
BUSY = 0.5
"""Share of their time below which they stand idle: half as many would do."""
STARVES = 0.5
"""Share of the learner's time in which it waits."""
WAITS = 0.3
"""The same, from which on a slow scorer is named."""
SCORED = 0.5
"""Share of the groups in hand that are with a slow scorer."""
FULL = 0.8
"""Of the broker's bounds. The learner moves what it has claimed to its disk at a half of them."""
APART_S = 2.0
"""Between two clocks. Each is measured to half of a round trip to the broker."""


class Roles:
    """Looks at who is there from time to time, and at whom the learner waits for."""

    def __init__(self, config: RunConfig) -> None:
        self._broker = config.broker
        self._synchronous = config.learner.lookahead_steps == 0
        self._since: dict[str, tuple[float, float]] = {}
        """(busy, ready) seconds of each generator's life when its time began to count."""
        self._in_hand, self._scoring, self._looks = 0, 0, 0

    def look(self, members: Sequence[Member], depths: Mapping[str, int]) -> Judged:
        """What is judged of them now."""
        yield "clocks", _clocks(members)
        yield "broker", self._full(depths)
        generators = [m for m in members if m.role == "generator"]
        for member in generators:
            self._since.setdefault(member.life, (member.busy_s, member.ready_s))
        spans = [(m, *self._since[m.life]) for m in generators]
        seconds = sum(m.ready_s - ready for m, _, ready in spans) / max(1, len(spans))
        if seconds >= IDLE_S:
            busy = [(m.busy_s - b) / max(1e-9, m.ready_s - ready) for m, b, ready in spans]
            yield "generators idle", self._idle(sum(busy) / len(busy))
            self.begin()

    def begin(self) -> None:
        """Count generators' time from here."""
        self._since = {}

    def waits(self, members: Sequence[Member]) -> None:
        """The learner waits for groups, and these are there."""
        generators = [m for m in members if m.role == "generator"]
        self._in_hand += sum(m.in_hand for m in generators)
        self._scoring += sum(m.scoring for m in generators)
        self._looks += 1

    def starves(self, waited: float | None, step: int) -> Judged:
        """What follows from the share of time for which the learner waited; None if not known."""
        if waited is None:
            return
        share = self._scoring / self._in_hand if self._in_hand else 0.0
        idle = self._looks > 0 and not self._in_hand
        slow = waited >= WAITS and share > SCORED
        self._in_hand, self._scoring, self._looks = 0, 0, 0
        figure = f"step {step}: the learner waited {waited:.0%} of its time for groups"
        advice = TOPICS["scorer slow"].advice
        words = f"{figure}, {share:.0%} of those in hand being with the scorer: {advice}"
        yield "scorer slow", Finding("scorer slow", words, waited) if slow else None
        starves = waited >= STARVES and not slow
        words = f"{figure}: {self._cause(idle)}"
        yield "learner starves", Finding("learner starves", words, waited) if starves else None

    def _cause(self, idle: bool) -> str:
        if self._synchronous:
            return "learner.lookahead_steps = 0 lets it wait for each batch; 1 has the next sampled"
        if idle:
            return (
                "generators had nothing in hand meanwhile; look at their logs, and raise "
                "learner.lookahead_steps"
            )
        return TOPICS["learner starves"].advice

    def _idle(self, busy: float) -> Finding | None:
        if busy >= BUSY or self._synchronous:
            return None
        words = f"generators had work for {busy:.0%} of the last {IDLE_S:.0f} s"
        advice = TOPICS["generators idle"].advice
        return Finding("generators idle", f"{words}: {advice}", BUSY / max(busy, 0.01))

    def _full(self, depths: Mapping[str, int]) -> Finding | None:
        parts = {
            "bytes": (depths.get("bytes", 0), self._broker.max_bytes),
            "groups": (depths.get("queued", 0), self._broker.max_groups),
        }
        name, (there, most) = max(parts.items(), key=lambda part: part[1][0] / part[1][1])
        if there < FULL * most:
            return None
        words = f"the queue has {there:,} of broker.max_{name} = {most:,}"
        return Finding("broker", f"{words}: {TOPICS['broker'].advice}", there / most)


def _clocks(members: Sequence[Member]) -> Finding | None:
    """By how much the machines' clocks are ahead of the broker's, as each has measured it."""
    ahead = {m.host: m.ahead_s for m in members if m.host}
    if len(ahead) < 2:
        return None
    first, last = max(ahead, key=ahead.__getitem__), min(ahead, key=ahead.__getitem__)
    apart = ahead[first] - ahead[last]
    if apart < APART_S:
        return None
    words = f"the clock of {first} is {apart:.1f} s ahead of that of {last}"
    return Finding("clocks", f"{words}: {TOPICS['clocks'].advice}", apart)
