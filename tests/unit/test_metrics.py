"""Files of metrics, and clocks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sppo.metrics import BusyClock, JsonLines, Spent, Tally, read_lines


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    file = JsonLines(tmp_path / "metrics.jsonl")
    assert file.read() == []
    for step in (1, 2, 3):
        file.append({"step": step})
    with file.path.open("a", encoding="utf-8") as raw:
        raw.write('{"step": 4, "lo')
    assert [r["step"] for r in read_lines(file.path)] == [1, 2, 3]
    # and what a later life wrote on to it does not hide the lines after it
    file.append({"step": 5}, {"step": 6})
    assert [r["step"] for r in read_lines(file.path)] == [1, 2, 3, 6]
    file.keep_until(2)
    assert [r["step"] for r in file.read()] == [1, 2]
    file.append({"step": 3}, {"step": 4})
    file.keep(lambda record: record["step"] % 2 == 0)
    assert [r["step"] for r in file.read()] == [2, 4]


def test_overlapping_work_counts_once() -> None:
    clock = BusyClock()
    assert clock.busy_s == 0
    with clock.work(), clock.work():
        time.sleep(0.05)
    assert 0.05 <= clock.busy_s <= clock.ready_s
    after = clock.busy_s
    time.sleep(0.02)
    assert clock.busy_s == after


def test_seconds_are_divided_by_kind_and_what_is_left_over() -> None:
    spent = Spent()
    assert spent.by_step(0) == {}
    with spent.on("wait") as waiting, spent.on("sync"):
        time.sleep(0.1)
    time.sleep(0.05)
    parts = spent.by_step(1)
    assert "sync" not in parts  # inside other work
    assert parts["wait"] == pytest.approx(waiting.seconds, abs=1e-3)
    assert parts["step"] == pytest.approx(parts["wait"] + parts["rest"], abs=2e-3)
    assert parts["rest"] >= 0.05


def test_counts_of_lives_that_come_and_go_are_added_up() -> None:
    tally = Tally()
    assert tally.total() == {}
    for life, calls in (("a", 3), ("a", 5), ("b", 2)):
        tally.hear(life, {"calls": calls})
    tally.hear("b", {})  # its next life has not counted yet, or its scorer counts nothing
    assert tally.total() == {"calls": 7}
