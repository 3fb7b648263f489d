"""Who was there and how busy."""

from __future__ import annotations

from pathlib import Path

from sppo.launch.attendance import Attendance
from sppo.metrics import read_lines
from sppo.types import Member


def generator(busy_s: float) -> Member:
    return Member(name="generator-0", role="generator", life="a", busy_s=busy_s, ready_s=2 * busy_s)


def test_who_is_there_is_written_every_ten_seconds(tmp_path: Path) -> None:
    now = [100.0]
    attendance = Attendance(tmp_path, clock=lambda: now[0])
    for second in range(25):
        now[0] = 100.0 + second
        attendance.saw([generator(float(second))])
    lines = list(read_lines(tmp_path / "roles.jsonl"))
    assert [line["time"] for line in lines] == [100.0, 110.0, 120.0]
    assert lines[1]["members"]["generator-0"] == {
        "role": "generator", "life": "a", "busy_s": 10.0, "ready_s": 20.0, "tokens": 0,
        "in_hand": 0, "scoring": 0,
    }  # fmt: skip


def test_the_file_stays_bounded_and_keeps_its_ends(tmp_path: Path) -> None:
    now = [0.0]
    attendance = Attendance(tmp_path, clock=lambda: now[0], most_bytes=3000)
    for line in range(200):
        now[0] = 1000.0 + 10 * line
        attendance.saw([generator(float(line))])
    lines = list(read_lines(tmp_path / "roles.jsonl"))
    assert (tmp_path / "roles.jsonl").stat().st_size <= 3000
    assert lines[0]["time"] == 1000.0
    assert lines[-1]["time"] > 1000.0 + 10 * 180


def test_a_clock_that_is_set_back_stops_nothing(tmp_path: Path) -> None:
    now = [1000.0]
    attendance = Attendance(tmp_path, clock=lambda: now[0])
    attendance.saw([generator(1.0)])
    now[0] = 500.0
    attendance.saw([generator(2.0)])
    assert len(list(read_lines(tmp_path / "roles.jsonl"))) == 2
