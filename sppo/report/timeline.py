"""What every role did and when, from what a run writes down anyway.

The learner's lane is made of metrics.jsonl: each batch says how long was waited, trained and
published; between batches events.jsonl says the phase. The others' lanes are of roles.jsonl
(`sppo.launch.attendance`): for how much of each interval there was work in hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

PARTS = (("wait_s", "waits for groups"), ("anchor_s", "anchor log-probs"), ("step_s", "trains"),
         ("sync_s", "weight sync"))  # fmt: skip
"""Of a batch, in the order in which they happen."""
UNBORN = {"busy_s": 0.0, "ready_s": 0.0, "tokens": 0}
"""A member when its life began."""
BATCHES = ("training", "done", "stopped")
"""Phases that batches tell, or that nothing happens in."""
SAID = {"waiting for the first batch": "waits for groups"}
WAITS = {"generator": "for tickets of the learner", "scorer": "for groups of generators"}
"""What a role with nothing in hand waits for."""


def number(record: Record, name: str) -> float:
    """A figure of a record; 0 for one that is not there, or no number."""
    value = record.get(name)
    return value if isinstance(value, int | float) and math.isfinite(value) else 0.0


def of_run(
    records: Sequence[Record], events: Sequence[Record], roles: Sequence[Record]
) -> dict[str, Any]:
    """Times in seconds since `began` (unix; None for a run without events), the lanes by name, and
    `marks`: when a role was started again.
    """
    known = [e["time"] for e in events if "time" in e] + [r["time"] for r in roles]
    began = min(known, default=None)
    origin = began or 0.0
    spans = [*phases(events, origin), *batches(records, offsets(records, events, origin))]
    lanes: dict[str, Any] = {"learner": {"spans": sorted(spans)}} if spans else {}
    ends = [end for _, end, _ in spans] + [t - origin for t in known]
    return {
        "began": began,
        "seconds": round(max(ends, default=0.0), 1),
        "lanes": lanes | members(roles, origin),
        "marks": [
            {"t": round(e["time"] - origin, 1), "lane": e.get("role", ""), "text": e["text"]}
            for e in events
            if e["kind"] == "restart" and "time" in e
        ],
        "waits": WAITS,
    }


def offsets(records: Sequence[Record], events: Sequence[Record], origin: float) -> dict[str, float]:
    """When each life of the learner began, by its epoch, in seconds since `origin`.

    A sync's event tells when its step was over, which metrics count from the beginning of the life.
    It is seen late, never early, so the smallest difference is right. A life without syncs begins
    where the one before ended.
    """
    synced = {e["step"]: e["time"] for e in events if e["kind"] == "sync" and "time" in e}
    found: dict[str, float] = {}
    ends: dict[str, float] = {}
    for record in records:
        epoch, wall_s = str(record.get("epoch")), number(record, "wall_s")
        ends[epoch] = wall_s
        if record["step"] in synced:
            began = synced[record["step"]] - origin - wall_s
            found[epoch] = min(began, found.get(epoch, began))
    last = 0.0
    for epoch, wall_s in ends.items():
        found.setdefault(epoch, last)
        last = found[epoch] + wall_s
    return found


def batches(records: Sequence[Record], began: Mapping[str, float]) -> list[list[Any]]:
    """[start, end, what] of what the learner did for each batch, laid out back from its end."""
    spans: list[list[Any]] = []
    for batch in _batches(records):
        end = began[str(batch[-1].get("epoch"))] + number(batch[-1], "wall_s")
        for name, what in reversed(PARTS):
            seconds = sum(number(step, name) for step in batch)
            if seconds >= 0.001:
                spans.append([round(end - seconds, 3), round(end, 3), what])
            end -= seconds
    return spans


def _batches(records: Sequence[Record]) -> list[list[Record]]:
    """Steps of one batch are recorded together: sooner after each other than they took."""
    found: list[list[Record]] = []
    for record in records:
        before = found[-1][-1] if found else {}
        passed = number(record, "wall_s") - number(before, "wall_s")
        if (
            before.get("epoch") == record.get("epoch")
            and found
            and passed < number(record, "step_s") / 2
        ):
            found[-1].append(record)
        else:
            found.append([record])
    return found


def phases(events: Sequence[Record], origin: float) -> list[list[Any]]:
    """[start, end, what] of the learner's phases but for training, which batches tell; each lasts
    until the next.
    """
    told = [e for e in events if e["kind"] == "phase" and "time" in e]
    if not told:
        return []
    last = max(e["time"] for e in events if "time" in e)
    ends = [*(e["time"] for e in told[1:]), last]
    return [
        [round(e["time"] - origin, 3), round(end - origin, 3), SAID.get(e["phase"], e["phase"])]
        for e, end in zip(told, ends, strict=True)
        if end > e["time"] and e["phase"] not in BATCHES
    ]


def members(roles: Sequence[Record], origin: float) -> dict[str, Any]:
    """Lanes of generators and scorers: columns `from`, `t` (ends of intervals), `busy` (share with
    work in hand), `scoring` (what of that was with the scorer when the interval ended), `tokens_s`.
    """
    lanes: dict[str, Any] = {}
    last: dict[str, tuple[float, Record]] = {}
    for line in roles:
        for name, member in line["members"].items():
            if member["role"] == "learner":
                continue
            at, before = last.get(name, (0.0, {}))
            last[name] = (line["time"], member)
            if before.get("life") != member["life"]:
                at, before = line["time"] - member["ready_s"], UNBORN
            if member["ready_s"] <= before["ready_s"]:
                continue
            ready = member["ready_s"] - before["ready_s"]
            busy = (member["busy_s"] - before["busy_s"]) / ready
            row = {
                "from": round(at - origin, 1),
                "t": round(line["time"] - origin, 1),
                "busy": round(min(1.0, max(0.0, busy)), 3),
                "scoring": round(member["scoring"] / max(1, member["in_hand"]), 3),
                "tokens_s": round((member["tokens"] - before["tokens"]) / ready, 1),
            }
            lane = lanes.setdefault(name, {"role": member["role"]} | {key: [] for key in row})
            for key, value in row.items():
                lane[key].append(value)
    return dict(sorted(lanes.items()))
