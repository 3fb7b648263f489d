"""What a run's directory says, as the report shows it.

A run that is going on, that has died, without samples or events, or with figures that are no
numbers has a report too: what is not there is empty, and a figure that is none is null.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sppo import samples
from sppo.config import flatten, shown
from sppo.launch import run_dir as run_dirs
from sppo.metrics import METRICS, read_lines
from sppo.report import timeline

HAPPENED = ("warning", "dead", "refusal", "restart", "resume", "parity", "checkpoint", "export")
"""Kinds of events that the page lists; syncs are listed where a member was lost in them."""
DIGITS = 6
"""Significant digits of a metric on the page."""

Record = Mapping[str, Any]


def run(run_dir: Path) -> dict[str, Any]:
    """Everything but the samples. Raises ConfigError where there is no run.

    `metrics` are columns, [steps] each, and so are those of each lane of the `timeline`.
    """
    described = run_dirs.describe(run_dir)
    records = list(read_lines(run_dir / "metrics.jsonl"))
    events = list(read_lines(run_dir / "events.jsonl"))
    config = configuration(run_dir)
    summary = described["summary"] or {}
    found: dict[str, Any] = finite(
        {
            "name": run_dir.resolve().name,
            "state": _state(described, records),
            "phase": described.get("phase", ""),
            "steps": described.get("steps") or config.get("learner.steps"),
            "summary": {key: value for key, value in summary.items() if key != "evaluations"},
            "metrics": columns(records),
            "evaluations": evaluations(events) or _of_metrics(records),
            "timeline": timeline.of_run(records, events, list(read_lines(run_dir / "roles.jsonl"))),
            "happened": list(happened(events)),
            "versions": versions(events),
            "config": config,
        }
    )
    return found


def kept_samples(run_dir: Path) -> list[dict[str, Any]]:
    """The samples with their scores, in order; none where none were kept."""
    return [
        finite({**sample, "scores": samples.scores(sample)})
        for sample in read_lines(run_dir / samples.NAME)
    ]


def columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    """[steps] of every metric that is a number, in the order of `METRICS`, and two more:
    `whole_s`, seconds from the end of the step before, and `trained_tokens_s`, tokens over them.
    """
    names = [*METRICS, *{name for record in records for name in record if name not in METRICS}]
    found = {name: [_number(record.get(name)) for record in records] for name in names}
    whole = [None, *map(_whole, records, records[1:])] if records else []
    found["whole_s"] = [_number(seconds) for seconds in whole]
    found["trained_tokens_s"] = [
        _number(timeline.number(record, "tokens") / seconds) if seconds else None
        for record, seconds in zip(records, whole, strict=True)
    ]
    return {name: values for name, values in found.items() if any(v is not None for v in values)}


def _whole(before: Record, record: Record) -> float | None:
    """Seconds between the ends of two steps; None over the learner's death, and for steps of one
    batch, which end together.
    """
    seconds = timeline.number(record, "wall_s") - timeline.number(before, "wall_s")
    same = record.get("epoch") == before.get("epoch")
    return seconds if same and seconds > timeline.number(record, "step_s") / 2 else None


def evaluations(events: Iterable[Record]) -> list[dict[str, Any]]:
    """Step, value and 95 % interval of each evaluation on the line of training that was kept."""
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["kind"] == "resume":
            found = {step: each for step, each in found.items() if step <= event["step"]}
        elif event["kind"] == "eval":
            record = event["record"]
            accuracy, win_rate = record.get("accuracy"), record.get("win_rate")
            low, high = record.get("interval") or (None, None)
            found[record["step"]] = {
                "step": record["step"],
                "value": accuracy if win_rate is None else win_rate,
                "low": low,
                "high": high,
                "n": record.get("n"),
            }
    return [found[step] for step in sorted(found)]


def _of_metrics(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The same where nobody kept events: each at the first step that was over after it."""
    found: list[dict[str, Any]] = []
    for record in records:
        value = {"value": record.get("held_out"), "low": record.get("held_out_low"),
                 "high": record.get("held_out_high"), "n": None}  # fmt: skip
        if value["value"] is None or (found and value.items() <= found[-1].items()):
            continue
        found.append({"step": record["step"], **value})
    return found


def happened(events: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """Time, kind and words of what a person may want to look at."""
    for event in events:
        kind = event["kind"]
        if kind == "sync" and event.get("failures"):
            text = f"weight sync of step {event['step']}: {'; '.join(map(str, event['failures']))}"
        elif kind in HAPPENED:
            text = _words(event)
        else:
            continue
        yield {"time": event.get("time"), "kind": kind, "text": text}


def _words(event: Record) -> str:
    about = f"{event['uid']}: " if event.get("uid") else ""
    said = event.get("reason") or event.get("text")
    if said:
        count = event.get("count", 1)
        return f"{about}{said}" + (f" ({count} times)" if count != 1 else "")
    rest = {key: value for key, value in event.items() if key not in ("time", "kind")}
    return ", ".join(f"{key} {_short(value)}" for key, value in rest.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def versions(events: Iterable[Record]) -> dict[str, str]:
    """Versions of packages as the newest life of the supervisor found them; empty if unknown."""
    known = [event["packages"] for event in events if event["kind"] == "versions"]
    return dict(known[-1]) if known else {}


def configuration(run_dir: Path) -> dict[str, Any]:
    """Settings by name. What may be a secret is not shown: neither passwords in addresses nor what
    is named like one in a table of the user's own.
    """
    text = (run_dir / "config.toml").read_text(encoding="utf-8")
    return flatten(shown(tomllib.loads(text)))


def _state(described: Record, records: Sequence[Record]) -> str:
    """`running`, `finished`, `stopped`, or `died`: what is not running and has no summary of where
    it ended.
    """
    state, summary = str(described["state"]), described["summary"]
    if state == "stopped":
        last = records[-1]["step"] if records else 0
        return "died" if summary is None or summary.get("steps", 0) < last else state
    return state


def _number(value: Any) -> float | int | None:
    """Rounded to `DIGITS`; None for what is none, or not finite."""
    if isinstance(value, int):  # and bool
        return int(value)
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded == int(rounded) else rounded


def finite(value: Any) -> Any:
    """The same with null for each figure that is not finite, which JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value


def as_json(value: Any) -> bytes:
    """As JSON, in few bytes."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
