from __future__ import annotations

from pathlib import Path

from sppo.metrics import JsonLines
from sppo.track.lines import Lines


def test_what_grows_is_read_once_and_half_a_line_later(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = Lines(path)
    assert lines.news() == []
    path.write_text('{"a": 1}\n{"a": 2')
    assert lines.news() == [{"a": 1}]
    assert lines.anew
    with path.open("a") as file:
        file.write('}\n{"a": 3}\n')
    assert lines.news() == [{"a": 2}, {"a": 3}]
    assert not lines.anew
    assert lines.news() == []


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    file = JsonLines(tmp_path / "a.jsonl")
    file.append({"step": 1}, {"step": 2})
    lines = Lines(file.path)
    assert len(lines.news()) == 2
    # When it is replaced twice, and longer than before
    file.keep_until(1)
    file.keep_until(1)
    file.append({"step": 2}, {"step": 3})
    assert [r["step"] for r in lines.news()] == [1, 2, 3]
    assert lines.anew
    file.path.unlink()
    assert lines.news() == []


def test_a_line_that_was_cut_off_and_written_on_to_is_left_out(tmp_path: Path) -> None:
    """As after a full disk."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": {"a": 2}\n{"a": 3}\n')
    assert Lines(path).news() == [{"a": 1}, {"a": 3}]
