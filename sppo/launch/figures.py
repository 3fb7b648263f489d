"""What a run has said last, as Prometheus reads it: the supervisor's, the learner's, each
generator's and scorer's, and the broker's figures, of one endpoint for the whole run.

Names begin with `sppo_` and the role. What is summed up is a counter; seconds are written out. What
an optimizer step says has the meaning that `sppo.metrics` gives it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sppo import __version__
from sppo.config import RunConfig
from sppo.metrics import METRICS
from sppo.types import Member, Version

SUMMED = ("tokens", "wait_s", "anchor_s", "step_s", "sync_s")
"""Of a step: summed up over those since this process began."""
UNSHOWN = frozenset({*SUMMED, "time", "tickets", "epoch", "skipped", "scorer_counts"})
DEPTHS = {
    "todo": ("tickets_waiting", "Training tickets that wait for a generator."),
    "eval": ("evaluation_tickets_waiting", "Tickets of an evaluation that wait for a generator."),
    "leased": ("tickets_leased", "Tickets that a generator has in hand."),
    "queued": ("groups_queued", "Groups that no checkpoint covers yet."),
    "dead": ("dead_letters", "Tickets that were given up."),
    "bytes": ("queued_bytes", "Bytes of the groups that are queued."),
}


class Figures:
    """figures.event(event); figures.saw(members, broker.depths()); REGISTRY.register(figures)

    The last two may be called in different threads: what is replaced is replaced whole.
    """

    def __init__(self, config: RunConfig) -> None:
        self._name, self._steps = config.name, config.learner.steps
        self._queue: Mapping[str, int] = {}
        self._members: Sequence[Member] = ()
        self._step: Mapping[str, Any] = {}
        self._sums: Counter[str] = Counter()
        self._evaluation: Mapping[str, Any] = {}
        self._phase = "starting"
        self._events: Counter[str] = Counter()
        self.restarts: Callable[[], Mapping[str, int]] = dict

    def event(self, event: Mapping[str, Any]) -> None:
        """Take in what the learner reports."""
        self._events[event["kind"]] += event.get("count", 1)
        match event["kind"]:
            case "step":
                self._step = event["record"]
                self._sums.update({name: event["record"].get(name) or 0 for name in SUMMED})
                self._sums["skipped"] += bool(event["record"].get("skipped"))
            case "eval":
                self._evaluation = event["record"]
            case "phase":
                self._phase = event["phase"]
            case "sync":
                self._sums["sync_failures"] += len(event["failures"])
            case "checkpoint":
                self._sums["checkpoint_held_s"] += event["held_s"]

    def saw(self, members: Sequence[Member], depths: Mapping[str, int]) -> None:
        """Who is there now, and how much the broker holds (`Broker.depths`)."""
        self._members, self._queue = members, depths

    def collect(self) -> Iterator[Any]:
        """As prometheus_client asks for it."""
        yield from self._run()
        yield from self._learner()
        yield from self._evaluated()
        yield from self._roles()
        for name, n in self._queue.items():
            short, meaning = DEPTHS[name]
            yield _gauge(f"broker_{short}", meaning, n)

    def _run(self) -> Iterator[Any]:
        yield _gauge(
            "run_info", "The run: its name, the version of sppo, its phase.", 1,
            config=self._name, version=__version__, phase=self._phase,
        )  # fmt: skip
        yield _gauge("run_steps_planned", "Optimizer steps that the run will take.", self._steps)
        restarts = _family(
            "counter", "run_restarts", "How often a role, or the broker, was started again.", "name"
        )
        for name, n in self.restarts().items():
            restarts.add_metric([name], n)
        yield restarts
        events = _family("counter", "run_events", "What happened, by kind (events.jsonl).", "kind")
        for kind in sorted({"dead", "refusal", "warning", *self._events}):
            events.add_metric([kind], self._events[kind])
        yield events

    def _learner(self) -> Iterator[Any]:
        for name in SUMMED:
            yield _counter(
                f"learner_{_seconds(name)}", f"{METRICS[name]}; summed", self._sums[name]
            )
        for name, meaning in (
            ("skipped", "Optimizer steps that were left out."),
            ("sync_failures", "Members that were lost in a weight sync."),
            ("checkpoint_held_s", "Seconds for which training stood still for a checkpoint."),
        ):
            yield _counter(f"learner_{_seconds(name)}", meaning, self._sums[name])
        for name, value in self._step.items():
            if name in METRICS and name not in UNSHOWN and value is not None:
                yield _gauge(f"learner_{_seconds(name)}", METRICS[name], value)

    def _evaluated(self) -> Iterator[Any]:
        record = dict(self._evaluation)
        low, high = record.pop("interval", None) or (None, None)
        for name, value in (record | {"interval_low": low, "interval_high": high}).items():
            if isinstance(value, (int, float)):
                yield _gauge(f"evaluation_{name}", f"`{name}` of the newest evaluation.", value)

    def _roles(self) -> Iterator[Any]:
        labels = ("role", "name", "host")
        for name, kind, meaning, value in _OF_MEMBERS:
            family = _family(kind, f"role_{name}", meaning, *labels)
            for member in self._members:
                if (n := value(member)) is not None:
                    family.add_metric([member.role, member.name, member.host], n)
            yield family
        counts = _family(
            "counter", "role_counts", "What the scorer in it counts itself.", *labels, "what"
        )
        for member in self._members:
            for what, n in member.counters.items():
                counts.add_metric([member.role, member.name, member.host, what], n)
        yield counts


def _applied(member: Member) -> int | None:
    return Version.parse(member.applied).n if member.applied else None


def _generators(name: str) -> Callable[[Member], float | None]:
    return lambda m: getattr(m, name) if m.role == "generator" else None


_OF_MEMBERS: tuple[tuple[str, str, str, Callable[[Member], float | None]], ...] = (
    ("alive", "gauge", "1 for each that shows signs of life.", lambda m: 1),
    ("busy_seconds", "counter", "Seconds with work in hand.", lambda m: m.busy_s),
    ("ready_seconds", "counter", "Seconds since it was ready.", lambda m: m.ready_s),
    ("version", "gauge", "Optimizer step whose weights a generator has.", _applied),
    ("tokens", "counter", "Completion tokens sampled.", _generators("tokens")),
    ("groups_in_hand", "gauge", "Groups leased and not yet pushed.", _generators("in_hand")),
    ("groups_scoring", "gauge", "How many of these are with the scorer.", _generators("scoring")),
    ("refusals", "counter", "Attempts that scorer or engine refused.", _generators("refusals")),
)


def _seconds(name: str) -> str:
    return f"{name[:-2]}_seconds" if name.endswith("_s") else name


def _family(kind: str, name: str, meaning: str, *labels: str) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    made = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    return made(f"sppo_{name}", meaning, labels=labels)


def _gauge(name: str, meaning: str, value: float, **labels: str) -> Any:
    family = _family("gauge", name, meaning, *labels)
    family.add_metric(list(labels.values()), value)
    return family


def _counter(name: str, meaning: str, value: float) -> Any:
    family = _family("counter", name, meaning)
    family.add_metric([], value)
    return family
