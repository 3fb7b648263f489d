"""Each line once, whatever happens to the file."""

from __future__ import annotations

import json
from pathlib import Path

from sppo.top.tail import Tail


def test_lines_are_read_once_and_one_that_is_being_written_later(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.records() == []
    path.write_text('{"step": 1}\n{"st')
    assert tail.records() == [{"step": 1}]
    with path.open("a") as file:
        file.write('ep": 2}\n{"step": 3}\n')
    assert tail.records() == [{"step": 2}, {"step": 3}]
    assert tail.records() == []
    assert not tail.anew


def test_what_is_no_record_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2{"step": 3}\n\xff\xfe\n7\n\n{"step": 4}\n')
    assert [r["step"] for r in Tail(path).records()] == [1, 4]


def test_of_a_long_file_only_the_end_is_read_and_later_only_what_came(tmp_path: Path) -> None:
    """100,000 steps."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n, "x": "y" * 100}) + "\n" for n in range(20_000)))
    tail = Tail(path, last=10_000)
    found = tail.records()
    assert 0 < len(found) < 100
    assert found[-1]["step"] == 19_999
    with path.open("a") as file:
        file.write('{"step": 20000}\n')
    assert tail.records() == [{"step": 20_000}]


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path, fresh = tmp_path / "metrics.jsonl", tmp_path / "fresh"
    tail = Tail(path)
    path.write_text('{"step": 1}\n{"step": 2}\n')
    tail.records()
    fresh.write_text('{"step": 1}\n')
    fresh.replace(path)
    assert tail.records() == [{"step": 1}]
    assert tail.anew
    path.unlink()
    assert tail.records() == []
    assert tail.anew
