"""What the learner says of itself: metrics of each step, events, warnings, phases, and the outcome.

Metrics go to RUN/metrics.jsonl; everything goes to the broker, where the supervisor listens.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sppo.config import RunConfig
from sppo.learner.checkpoint import Writing
from sppo.learner.lineage import Lineage
from sppo.learner.pulse import Pulse
from sppo.learner.usage import Usage
from sppo.metrics import JsonLines, Tally
from sppo.transport import codec
from sppo.transport.broker import Broker
from sppo.types import Member
from sppo.watch.said import Finding
from sppo.watch.watch import Watch

log = logging.getLogger(__name__)

SAY_S = 5.0
"""Of waiting for a batch, after which it is first said for whom."""
LOW_LEFT = 0.5
"""Share of the training that an export keeps, below which that is warned of."""


class Records:
    """Those of one life."""

    def __init__(self, config: RunConfig, broker: Broker, run_dir: Path, pulse: Pulse) -> None:
        self._mailbox = broker.mailbox
        self._depths = broker.depths
        self._pulse = pulse
        self._watch = Watch(config)
        self._metrics = JsonLines(run_dir / "metrics.jsonl")
        self._export: dict[str, Any] | None = None
        self._registry = broker.registry
        self._tally = Tally()
        self._groups = config.learner.groups_per_step
        self._waiting_since, self._say_s = 0.0, SAY_S
        self._scorer = config.scorer.url or config.scorer.name
        self.usage = Usage(broker.registry)

    def event(self, kind: str, **fields: Any) -> None:
        """Something happened; `fields` are plain msgpack types."""
        self._mailbox.send("metrics", codec.pack({"kind": kind, **fields}))

    def phase(self, name: str) -> None:
        """What the learner is at from here on."""
        self._pulse.beat()
        self.event("phase", phase=name)

    @contextmanager
    def long_work(self, phase: str, kind: str) -> Iterator[None]:
        """Around one long piece of work that cannot beat; it counts as time of this kind."""
        self.phase(phase)
        with self._pulse.busy(), self.usage.on(kind):
            yield

    def saving(self, writing: Writing) -> None:
        """A checkpoint that is waited for has got on."""
        self._pulse.beat()
        self.event(
            "saving", step=writing.step, nbytes=writing.nbytes, written=writing.written,
            seconds=round(time.monotonic() - writing.began, 1),
        )  # fmt: skip

    def waiting(self, since: float, there: int, extra: int) -> None:
        """The learner waits for a batch since then, by time.monotonic, of which so many groups are
        there; it wants `extra` beyond `learner.groups_per_step`. It is said for whom after `SAY_S`,
        and again each time that this has doubled.
        """
        if since != self._waiting_since:
            self._waiting_since, self._say_s = since, SAY_S
        members = self._registry.members()
        self._watch.waits(members)
        if (seconds := time.monotonic() - since) < self._say_s:
            return
        self._say_s = 2 * seconds
        wanted = self._groups + extra
        missing = max(1, wanted - there)
        text = f"the learner has waited {seconds:.0f} s for {missing} of {wanted} groups: " + (
            whereabouts(members, self._scorer)
        )
        log.info("%s", text)
        self.event("waiting", text=text, seconds=round(seconds, 1), missing=missing, wanted=wanted)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While somebody wants the run to stand still; nobody is idle meanwhile."""
        with self.usage.on("pause"):
            yield
        self._watch.pause()

    def judged(self, topic: str, finding: Finding | None) -> None:
        """What this part of the learner found of a topic, None being that all is well."""
        self._warn(self._watch.hear(topic, finding))

    def _warn(self, news: Iterable[Finding]) -> None:
        """Things that a person should look at."""
        for finding in news:
            log.warning("%s", finding.text)
            self.event("warning", topic=finding.topic, text=finding.text)

    def exported(self, dtype: str, left: float | None) -> None:
        """In which number format; with the share of the training that rounding to it left, where
        that is known.
        """
        self._export = {"dtype": dtype, "left": left}
        self.event("export", **self._export)
        if left is not None and left < LOW_LEFT:
            text = (
                f"rounded to {dtype}, the exported weights keep {left:.0%} of what was trained; "
                "the checkpoint has all of it: set model.export_dtype = 'float32'"
            )
            self.judged("export", Finding("export", text))

    def keep_until(self, step: int) -> None:
        """Records of later steps belong to a line of training that was given up."""
        self._metrics.keep_until(step)
        self._watch.recall(self._metrics.read())

    @contextmanager
    def batch(
        self, steps: Sequence[dict[str, Any]], lineage: Lineage, probe: float | None
    ) -> Iterator[None]:
        """Record these steps, which were taken, when what happens inside is over, even if a stop
        ends it.
        """
        try:
            yield
        finally:
            members = self._registry.members()
            counts = self._counted(members)
            for step in steps:
                self._step(
                    step
                    | {
                        "time": round(time.time(), 3),
                        "epoch": lineage.version.epoch,
                        "wall_s": lineage.age_s,
                        "mismatch_probe": probe,
                        "scorer_counts": counts,
                        **_held_out(lineage.evaluations),
                    }
                )
            self._warn(self._watch.look(members, self._depths))

    def _counted(self, members: Sequence[Member]) -> dict[str, float] | None:
        """What the scorer's processes have counted; None where they count nothing."""
        for member in members:
            self._tally.hear(member.life, member.counters)
        return self._tally.total() or None

    def _step(self, record: dict[str, Any]) -> None:
        self._warn(self._watch.step(record))
        self._metrics.append(record)
        self.event("step", record=record)

    def outcome(
        self, lineage: Lineage, *, stopped: bool, busy: dict[str, float], time: dict[str, float]
    ) -> dict[str, Any]:
        """For the summary."""
        evaluations, life = lineage.evaluations, lineage.life()
        syncs = int(life["syncs"])
        records = self._metrics.read()
        used = [uid for record in records for uid in record["tickets"]]
        return {
            "finished": not stopped,
            "steps": lineage.n,
            "wall_s": round(life["wall_s"], 1),
            "held_out_accuracy": {
                "before": evaluations[0]["accuracy"] if evaluations else None,
                "after": evaluations[-1]["accuracy"] if evaluations else None,
                "n": evaluations[-1]["n"] if evaluations else 0,
            },
            "win_rate": _win_rate(evaluations),
            "evaluations": evaluations,
            "busy": {role: round(share, 3) for role, share in busy.items()},
            "time": time,
            "tickets": {
                "issued": lineage.ledger.next_index,
                "trained": len(set(used)),
                "twice": len(used) - len(set(used)),
                "dead": lineage.ledger.dead,
            },
            "made_again": lineage.ledger.again,
            "skipped": sum(bool(record.get("skipped")) for record in records),
            "syncs": {
                "count": syncs,
                "mean_s": round(life["sync_s"] / syncs, 3) if syncs else None,
                "max_s": round(life["sync_max_s"], 3),
            },
            "export": self._export,
            "checkpoints": {
                "count": int(life["saves"]),
                "held_s": round(life["held_s"], 3),
                "written_s": round(life["written_s"], 3),
            },
        }


def whereabouts(members: Sequence[Member], scorer: str) -> str:
    """Where the groups of live generators are."""
    generators = [m for m in members if m.role == "generator"]
    if not generators:
        return "no generator is there"
    with_scorer = {m.name: m.scoring for m in generators if m.scoring}
    sampled = {m.name: n for m in generators if (n := m.in_hand - m.scoring) > 0}
    parts = []
    if with_scorer:
        services = sum(m.role == "scorer" for m in members)
        at = f" ({services} services)" if services > 1 else ""
        parts.append(f"{sum(with_scorer.values())} are with the scorer {scorer}{at}")
    if sampled:
        each = ", ".join(f"{name} {n}" for name, n in sampled.items())
        parts.append(f"{sum(sampled.values())} are being sampled ({each})")
    return "; ".join(parts) or f"nothing is in hand of {', '.join(m.name for m in generators)}"


def _held_out(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The newest evaluation's figure, for the metrics of a step."""
    newest = evaluations[-1] if evaluations else {}
    value = newest.get("accuracy") if newest.get("win_rate") is None else newest["win_rate"]
    low, high = newest.get("interval") or (None, None)
    return {"held_out": value, "held_out_low": low, "held_out_high": high}


def _win_rate(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Against the base model, by the newest evaluation; None where the scorer gives rewards."""
    newest = evaluations[-1] if evaluations else {}
    if newest.get("win_rate") is None:
        return None
    return {name: newest[name] for name in ("win_rate", "interval", "p", "n", "step")}
