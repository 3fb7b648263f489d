"""The life of a group as a trace, held against the Trace Event Format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sppo import spans
from sppo.errors import ConfigError


def line(n: int, *times: tuple[float, ...], generator: str = "generator-0") -> dict[str, Any]:
    groups = [
        {
            "uid": f"train-{n}-{i}",
            "generator": generator,
            "completions": 8,
            "tokens": 90,
            "times": t,
        }
        for i, t in enumerate(times)
    ]
    return {"step": n, "trained": [10.0 * n, 10.0 * n + 4], "groups": groups}


def test_a_life_is_seven_stages_one_after_the_other() -> None:
    (life,) = spans.lives([line(1, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0))])
    assert list(life.stages()) == [
        ("wait for a generator", 1.0, 2.0), ("sample", 2.0, 3.0), ("score", 3.0, 4.0),
        ("push", 4.0, 5.0), ("wait to be claimed", 5.0, 6.0), ("wait for a batch", 6.0, 10.0),
        ("train", 10.0, 14.0),
    ]  # fmt: skip


def test_a_group_whose_ticket_does_not_say_when_it_was_issued_is_not_shown() -> None:
    given = [line(1, (0.0, 2.0, 3.0, 4.0, 5.0, 6.0))]
    assert spans.lives(given) == []
    assert spans.shifts(given) == {}


@pytest.mark.parametrize(
    ("ahead", "shift"),
    [
        (0.0, 0.0),
        (0.5, 0.0),  # within what the order allows
        (5.0, -4.0),  # its pushes come before they are claimed
        (-5.0, 4.0),
    ],
)
def test_a_clock_is_moved_by_the_least_that_keeps_the_order(ahead: float, shift: float) -> None:
    times = (1.0, *(t + ahead for t in (2.0, 3.0, 4.0, 5.0)), 6.0)
    lines = [line(1, times), line(2, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), generator="generator-1")]
    assert spans.shifts(lines) == {"generator-0": shift, "generator-1": 0.0}
    moved = spans.lives(lines)[0].moments
    assert list(moved) == sorted(moved)
    assert moved[2] - moved[1] == pytest.approx(1.0)


def test_a_clock_that_was_set_meanwhile_is_put_half_way() -> None:
    early = (1.0, -9.0, -8.0, -7.0, -6.0, 6.0)
    late = (1.0, 12.0, 13.0, 14.0, 15.0, 6.0)
    assert spans.shifts([line(1, early, late)]) == {"generator-0": 0.5}
    for life in spans.lives([line(1, early, late)]):
        assert list(life.moments) == sorted(life.moments)


def test_groups_without_all_times_are_left_out() -> None:
    assert spans.lives([line(1, (), (1.0, 2.0))]) == []
    assert spans.shifts([line(1, ())]) == {}


def test_the_trace_is_one_by_the_format() -> None:
    whole = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    found = spans.trace([line(1, whole, whole), line(2, (15.0, 15.5, 16.0, 17.0, 18.0, 19.0))])
    events = json.loads(json.dumps(found))["traceEvents"]
    for event in events:
        assert event.keys() >= {"ph", "name", "pid", "tid"}
        assert event["ph"] in {"M", "X", "s", "f"}
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] != "M":
            assert isinstance(event["ts"], int)
        if event["ph"] == "X":
            assert event["dur"] >= 0
    named = {e["args"]["name"]: e["pid"] for e in events if e["name"] == "process_name"}
    assert named == {"learner": 1, "generator-0": 2}
    # each row has a name
    lanes = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert lanes == {(1, 1): "steps", (2, 1): "groups", (2, 2): "groups"}
    # slices of a row are one inside the other, or one after the other
    rows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in events:
        if event["ph"] == "X":
            row = rows.setdefault((event["pid"], event["tid"]), [])
            row.append((event["ts"], event["ts"] + event["dur"]))
    assert rows.keys() == {(1, 1), (2, 1), (2, 2)}
    for row in rows.values():
        for a, b in row:
            assert all(
                c >= b or d <= a or (a <= c and d <= b) or (c <= a and b <= d) for c, d in row
            )
    # and each arrow has two ends, each within a slice, and a number, as Perfetto wants it
    starts = [e for e in events if e["ph"] == "s"]
    assert [start["id"] for start in starts] == [0, 1, 2]
    for start in starts:
        (end,) = (e for e in events if e["ph"] == "f" and e["id"] == start["id"])
        for at in (start, end):
            assert any(a <= at["ts"] <= b for a, b in rows[at["pid"], at["tid"]])


def test_a_run_without_spans_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        spans.read(tmp_path)
