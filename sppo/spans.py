"""RUN/spans.jsonl: the life of each trained group; as a trace that Perfetto opens, or as spans of
OpenTelemetry. Written by `sppo.learner.spans`.

step      optimizer step
trained   [begin, end] of the step
groups    [{"uid", "generator", "completions", "tokens", "times"}], the last being when the group's
          ticket was issued, leased, its completions sampled, scored, the group pushed, and claimed

Clocks differ between machines. What a generator says is moved by the least that puts its groups'
leases after they were issued and their pushes before they were claimed, one number for each
generator; 0 where nothing contradicts. So a span may be off by as much as a ticket or group waited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sppo.errors import ConfigError
from sppo.metrics import read_lines

NAME = "spans.jsonl"
STAGES = (
    "wait for a generator",
    "sample",
    "score",
    "push",
    "wait to be claimed",
    "wait for a batch",
)
"""What lies between the six times, and the last of them and the step."""
LEASED, PUSHED, TIMES = 1, 4, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One group: seven moments from issued to trained, and the end of its step."""

    uid: str
    generator: str
    step: int
    moments: Sequence[float]
    """Ends of `STAGES` after the first, which is when the ticket was issued; never decreasing."""
    trained: float
    about: Mapping[str, Any] = field(default_factory=dict)

    def stages(self) -> Iterator[tuple[str, float, float]]:
        """(name, begin, end) of each, the step itself last."""
        names = (*STAGES, "train")
        yield from zip(names, self.moments, (*self.moments[1:], self.trained), strict=True)


def read(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run. Raises ConfigError where there are none."""
    path = run_dir / NAME
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file: name a run that has taken a step")
    return list(read_lines(path))


def shifts(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by which each generator's clock is moved."""
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    for group in (group for line in lines for group in line["groups"]):
        if _known(times := group["times"]):
            name = group["generator"]
            least[name] = max(least.get(name, -1e18), times[0] - times[LEASED])
            most[name] = min(most.get(name, 1e18), times[-1] - times[PUSHED])
    return {
        # Where both cannot hold (a clock that was set meanwhile), half-way.
        name: min(max(0.0, low), most[name]) if low <= most[name] else (low + most[name]) / 2
        for name, low in least.items()
    }


def _known(times: Sequence[float]) -> bool:
    """Whether there are all; a ticket of an older sppo does not say when it was issued (0)."""
    return len(times) == TIMES and times[0] > 0


def lives(lines: Sequence[Mapping[str, Any]]) -> list[Life]:
    """Of all groups that have their times, by the learner's clock."""
    by = shifts(lines)
    found = []
    for line in lines:
        begin, end = line["trained"]
        for group in line["groups"]:
            if not _known(times := group["times"]):
                continue
            own = [t + by[group["generator"]] for t in times[LEASED : PUSHED + 1]]
            moments = [times[0]]
            for moment in (*own, times[-1], begin):
                moments.append(max(moments[-1], moment))
            about = {key: group[key] for key in ("completions", "tokens")}
            found.append(
                Life(
                    uid=group["uid"], generator=group["generator"], step=line["step"],
                    moments=moments, trained=max(end, moments[-1]), about=about,
                )
            )  # fmt: skip
    return found


def trace(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """In the Trace Event Format: a process for the learner with its steps, one for each generator
    with its groups, in as many rows as overlap, and an arrow from each group to its step.
    """
    events: list[dict[str, Any]] = [
        _name("process_name", 1, 0, "learner"), _name("thread_name", 1, 1, "steps"),
    ]  # fmt: skip
    for line in lines:
        begin, end = line["trained"]
        about = {"groups": len(line["groups"])}
        events.append(_slice(f"step {line['step']}", 1, 1, begin, end, about))
    rows: dict[str, list[float]] = {}
    for number, life in enumerate(sorted(lives(lines), key=lambda each: each.moments[0])):
        if life.generator not in rows:
            rows[life.generator] = []
            events.append(_name("process_name", len(rows) + 1, 0, life.generator))
        process = 2 + list(rows).index(life.generator)
        row = _row(rows[life.generator], life.moments[0], life.trained)
        about = {"step": life.step, **life.about}
        events.append(_slice(life.uid, process, row, life.moments[0], life.trained, about))
        for name, begin, end in life.stages():
            events.append(_slice(name, process, row, begin, end, {}))
        events += _arrow(number, _us(life.moments[-1]), process, row)
    for process, free in enumerate(rows.values(), start=2):
        events += [_name("thread_name", process, row + 1, "groups") for row in range(len(free))]
    skew = {name: round(seconds, 3) for name, seconds in shifts(lines).items()}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"clock shifts, s": skew}}


def _row(free: list[float], begin: float, end: float) -> int:
    """The first row that is free from `begin` on, taken until `end`; rows count from 1."""
    for i, until in enumerate(free):
        if until <= begin:
            free[i] = end
            return i + 1
    free.append(end)
    return len(free)


def _name(kind: str, process: int, row: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": row, "args": {"name": name}}


def _slice(
    name: str, process: int, row: int, begin: float, end: float, about: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X", "name": name, "cat": "sppo", "pid": process, "tid": row, "ts": _us(begin),
        "dur": _us(end) - _us(begin), "args": dict(about),
    }  # fmt: skip


def _arrow(number: int, at: int, process: int, row: int) -> list[dict[str, Any]]:
    common = {"name": "trained", "cat": "sppo", "id": number, "ts": at}  # Perfetto wants a number
    return [
        {**common, "ph": "s", "pid": process, "tid": row},
        {**common, "ph": "f", "bp": "e", "pid": 1, "tid": 1},
    ]


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
