"""Judges the records of metrics.jsonl, one after the other.

A window is `BATCHES` batches; growth and drift are of the newest window against the first one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sppo.config import RunConfig
from sppo.watch.said import Finding
from sppo.watch.topics import TOPICS

PARITY_NATS = {"bfloat16": 0.1, "float32": 0.01}
"""Nats a token, where `learner.parity_threshold` is 0."""
BATCHES = 10
LOW_SAMPLE = 0.5
"""Effective sample size below which a batch is far from the policy."""
EQUAL = 0.9
"""Share of groups without a signal: with 8 groups a step, less than one of them teaches."""
FACTOR = 2.0
"""Of lengths. A model that learns to end its turns gets shorter by a third (quickstart)."""
MORE_CUT = 0.2
"""Of all completions, beyond what was cut in the first window."""
MEASURED = 3
"""Measurements of the mismatch that are averaged."""
GROWN = 3.0
"""Of the mismatch. With weights that change it differs by a factor of 2 from one to the next."""
NOTICED = 0.25
"""Of the threshold: a smaller mismatch is rounding, whatever it was before."""

Judged = Iterator[tuple[str, Finding | None]]
Record = Mapping[str, Any]


class Steps:
    """for topic, finding in steps.judge(record): ..."""

    def __init__(self, config: RunConfig) -> None:
        self.size = BATCHES * config.learner.steps_per_batch
        """Records in a window."""
        own = PARITY_NATS.get(config.compute, PARITY_NATS["bfloat16"])  # a file may say `auto`
        self._threshold = config.learner.parity_threshold or own
        self._max_tokens = config.sampling.max_tokens
        self._compares = config.sampling.completions > 1
        self._first: list[Record] = []
        self.window: deque[Record] = deque(maxlen=self.size)
        """The newest records."""
        self._mismatch: list[float] = []
        self._probe: float | None = None

    def judge(self, record: Record) -> Judged:
        """Every topic on which this record has something to say, with what, or with None where all
        is well.
        """
        if len(self._first) < self.size:
            self._first.append(record)
        self.window.append(record)
        flaw = record.get("skipped")
        words = f"step {record['step']} was skipped: {flaw}"
        yield "skipped", Finding("skipped", words) if flaw else None
        if flaw:
            return  # its figures are null
        yield "effective sample size", self._sample_size(record)
        yield "truncation", self._truncation(record)
        if len(self.window) == self.size:
            yield "equal scores", self._equal(record)
            yield "lengths", self._lengths(record)
        if self._measured(record):
            yield "mismatch", self._mismatch_grows(record)

    def _sample_size(self, record: Record) -> Finding | None:
        # A capped weight cannot tell: that of the ratios before their cap does.
        size = record.get("effective_sample_size_untruncated", record.get("effective_sample_size"))
        if size is None or size >= LOW_SAMPLE:
            return None
        figure = f"effective sample size {size:.2f}"
        return _found("effective sample size", record, figure, LOW_SAMPLE / max(size, 1e-9))

    def _truncation(self, record: Record) -> Finding | None:
        if record.get("truncated_share") == 1:
            words = f"every completion ended at sampling.max_tokens = {self._max_tokens}"
            return _found("truncation", record, words, 1.0)
        before, now = _mean(self._first, "truncated_share"), _mean(self.window, "truncated_share")
        if before is None or now is None or now < before + MORE_CUT or not self._far:
            return None
        words = f"{now:.0%} of completions end at sampling.max_tokens = {self._max_tokens}, of the "
        return _found("truncation", record, f"{words}first {before:.0%}", now)

    def _equal(self, record: Record) -> Finding | None:
        share = _mean(self.window, "no_signal_share") if self._compares else None
        if share is None or share < EQUAL:
            return None
        words = f"{share:.0%} of the groups of {BATCHES} batches have nothing but equal scores"
        reward = _mean(self.window, "reward_mean")
        if reward is not None:
            words += f" (mean reward {reward:.3g})"
        return _found("equal scores", record, words)

    def _lengths(self, record: Record) -> Finding | None:
        before, now = (_mean(part, "generated_length_mean") for part in (self._first, self.window))
        if not before or not now or not self._far:
            return None
        factor = max(now / before, before / now)
        if factor < FACTOR:
            return None
        words = f"completions have {now:.0f} tokens, and had {before:.0f} at first"
        return _found("lengths", record, words, factor)

    def _measured(self, record: Record) -> bool:
        """Whether this record tells of a new measurement of the mismatch."""
        value, probe = record.get("mismatch"), record.get("mismatch_probe")
        if value is None and probe != self._probe:
            value = probe
        self._probe = probe
        if value is not None:
            self._mismatch.append(value)
            del self._mismatch[MEASURED:-MEASURED]
        return value is not None and len(self._mismatch) == 2 * MEASURED

    def _mismatch_grows(self, record: Record) -> Finding | None:
        before = sum(self._mismatch[:MEASURED]) / MEASURED
        now = sum(self._mismatch[MEASURED:]) / MEASURED
        if now < NOTICED * self._threshold or now < GROWN * before:
            return None
        words = (
            f"the mismatch of engine and learner is {now:.2g} nats a token, and was {before:.2g} "
            f"at first (learner.parity_threshold = {self._threshold:g})"
        )
        return _found("mismatch", record, words, now)

    @property
    def _far(self) -> bool:
        """Whether the newest window has nothing of the first one."""
        return len(self.window) == self.size and self.window[0]["step"] > self._first[-1]["step"]


def stale(step: int, count: int, most: int) -> Finding | None:
    """Of groups that were older than `most` steps."""
    if not count:
        return None
    words = f"step {step}: {count} groups were older than learner.max_staleness = {most} and are "
    return Finding("staleness", f"{words}made again: {TOPICS['staleness'].advice}", count)


def waited(records: Sequence[Record], size: int) -> float | None:
    """Share of their time for which the learner waited for groups, over the last `size` records of
    its newest life, the first of which only begins the time. None if there are not as many.
    """
    mine = [r for r in records if r.get("epoch") == records[-1].get("epoch")][-size:]
    if len(mine) < size or "wall_s" not in mine[0]:
        return None
    elapsed = mine[-1]["wall_s"] - mine[0]["wall_s"]
    return sum(r["wait_s"] for r in mine[1:]) / elapsed if elapsed > 0 else None


def _found(topic: str, record: Record, figure: str, badness: float = 1.0) -> Finding:
    return Finding(topic, f"step {record['step']}: {figure}: {TOPICS[topic].advice}", badness)


def _mean(records: Sequence[Record], name: str) -> float | None:
    values = [r[name] for r in records if r.get(name) is not None]
    return sum(values) / len(values) if values else None
