"""Metrics of an optimizer step: their names and meanings, the file they go to, and a clock for busy
time.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS: Mapping[str, str] = {
    "step": "optimizer steps since the base model",
    "time": "when it was recorded, seconds since 1970",
    "epoch": "the learner's life that took the step",
    "wall_s": "seconds since this life of the learner began",
    "loss": "sum over the step of w · residual² / completions, KL and entropy terms apart",
    "residual_mean": "mean residual over completions",
    "residual_std": "its standard deviation",
    "delta_mean": "mean Δ, nats; null where policy and anchor are the same weights",
    "delta_std": "its standard deviation",
    "target_mean": "mean A (`centered`: score minus its group's mean)",
    "no_signal_share": "share of groups whose rewards are all equal or whose preferences all 1/2; "
    "1 for one completion",
    "compared_share": "share of the pairs of completions that the scorer compared; null for one "
    "that gives rewards",
    "unmet": "completions that it compared with none of their group: not trained, but for cut ones "
    "with `objective.truncated = 'zero'`; null for one that gives rewards",
    "measured_share": "share of the trained completions that went through the model, which those "
    "of groups without a "
    "gradient do not, but for a sample; residuals, weights and ratios are over these",
    "groups_without_weight": "groups of which every weight is 0: not trained",
    "weight_mean": "mean off-policy weight",
    "weight_clipped_share": "share of weights at their cap",
    "effective_sample_size": "(Σw)² / (N Σw²)",
    "effective_sample_size_untruncated": "the same of the ratios before their cap",
    "rejected_share": "share of tokens that objective.reject left out; null without it",
    "log_rho_mean": "mean log importance ratio over a sequence, nats",
    "log_rho_std": "its standard deviation",
    "log_rho_token_mean": "the same per token",
    "log_rho_token_std": "standard deviation over tokens",
    "staleness_mean": "mean over groups of n at use minus the oldest n in the group, same epoch; "
    "null if none",
    "staleness_max": "largest of these",
    "foreign_epoch_groups": "groups sampled, in part or whole, under another life of the learner",
    "mismatch": "mean |engine − learner| log-prob over completions wholly of the engines' "
    "version; null if none",
    "mismatch_probe": "the same by the last probe, at weights that were kept for it; null before "
    "the first",
    "kl": "mean k3 estimate of the KL divergence from the reference, nats a token; null without "
    "objective.kl_coef",
    "entropy": "mean entropy of the policy over completion tokens, nats; by −log μ for those that "
    "were not measured",
    "grad_norm": "global gradient norm before clipping",
    "grad_clipped": "whether it was clipped",
    "lr": "learning rate",
    "skipped": "why the optimizer step was left out, figures that are not finite being null; "
    "null if it was taken",
    "reward_mean": "mean reward over completions; null for a scorer that compares",
    "tokens": "completion tokens trained",
    "padding_share": "share of the tokens fed that were padding",
    "length_mean": "mean length of the completions trained, tokens",
    "generated_length_mean": "mean length of all completions of these groups, tokens",
    "truncated_share": "share of all completions of these groups that ended at max_tokens",
    "wait_s": "seconds waited for groups; 0 but for the first mini-batch of a batch",
    "anchor_s": "seconds of computing anchor log-probs beforehand; 0 but for the first mini-batch "
    "of a batch",
    "step_s": "seconds of forward, backward and update",
    "sync_s": "seconds of the weight sync that followed",
    "held_out": "held-out accuracy of the newest evaluation before this step was over, or the win "
    "rate against the base model where the scorer compares; null without one",
    "held_out_low": "lower end of its 95 % interval",
    "held_out_high": "upper end",
    "scorer_counts": "what the scorer counts itself, over all its processes that this life of the "
    "learner has seen, since they began: of `llm-judge` calls, cached answers, tokens, retries; "
    "null for one that counts nothing",
    "tickets": "uids of the tickets used, for audits",
}


class Tally:
    """Counts that only grow, summed over lives that come and go.

    tally.hear(life, {"calls": 12}); tally.total()
    """

    def __init__(self) -> None:
        self._lives: dict[str, Mapping[str, float]] = {}

    def hear(self, life: str, counts: Mapping[str, float]) -> None:
        """What this life has counted so far."""
        if counts:
            self._lives[life] = counts

    def total(self) -> dict[str, float]:
        """Over all lives; empty if none counts."""
        found: dict[str, float] = {}
        for counts in self._lives.values():
            for name, n in counts.items():
                found[name] = found.get(name, 0) + n
        return found


class JsonLines:
    """One JSON object per line, each flushed to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *records: Mapping[str, Any]) -> None:
        """Add records."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[dict[str, Any]]:
        """Every whole record; a line cut off by a crash is left out."""
        return list(read_lines(self.path))

    def keep_until(self, step: int) -> None:
        """Drop records of later steps: they belong to a line of training that was given up."""
        self.keep(lambda record: record["step"] <= step)

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the other records."""
        if not self.path.exists():
            return
        kept = [r for r in self.read() if wanted(r)]
        scratch = self.path.with_suffix(".partial")
        scratch.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
        scratch.replace(self.path)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole records of a JSON-lines file; nothing if there is none. Left out are lines that a
    death or a full disk cut off: the last one, and one that a later life wrote on to.
    """
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


class Spent:
    """Where the time goes: seconds by kind of work, one kind at a time.

    with spent.on("wait") as waiting: ...
    waiting.seconds
    """

    @dataclass(slots=True)
    class Piece:
        """One piece of work."""

        seconds: float = 0.0

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._depth = 0

    @contextmanager
    def on(self, kind: str) -> Iterator[Piece]:
        """Count what happens inside; work inside other work counts as the outer kind."""
        started, piece = time.monotonic(), Spent.Piece()
        self._depth += 1
        try:
            yield piece
        finally:
            self._depth -= 1
            piece.seconds = time.monotonic() - started
            if not self._depth:
                self._seconds[kind] = self._seconds.get(kind, 0.0) + piece.seconds

    def by_step(self, steps: int) -> dict[str, float]:
        """Seconds a step, in all (`step`), by kind, and what no kind accounts for (`rest`); nothing
        without steps.
        """
        if not steps:
            return {}
        whole = time.monotonic() - self._started
        parts = {"step": whole, **self._seconds, "rest": whole - sum(self._seconds.values())}
        return {name: round(seconds / steps, 3) for name, seconds in parts.items()}


class BusyClock:
    """How long there was work in hand, for any number of overlapping pieces of work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working = 0
        self._since = 0.0
        self._total = 0.0
        self._started = time.monotonic()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Around one piece of work."""
        with self._lock:
            if self._working == 0:
                self._since = time.monotonic()
            self._working += 1
        try:
            yield
        finally:
            with self._lock:
                self._working -= 1
                if self._working == 0:
                    self._total += time.monotonic() - self._since

    @property
    def busy_s(self) -> float:
        """Seconds with at least one piece of work."""
        with self._lock:
            running = time.monotonic() - self._since if self._working else 0.0
            return self._total + running

    @property
    def ready_s(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self._started
