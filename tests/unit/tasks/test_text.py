"""JSON lines and CSV: what a file may hold, and the line of what it may not."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sppo.errors import ConfigError
from sppo.tasks import text
from sppo.tasks.rows import Row, Tally


def read(path: Path, data: bytes) -> tuple[list[Row], Tally]:
    path.write_bytes(data)
    tally = Tally(setting=f"task.name = 'jsonl:{path}'")
    reader = text.csv if path.suffix == ".csv" else text.jsonl
    return reader(path, tally), tally


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return tmp_path / "q.jsonl"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "q.csv"


def test_line_ends_marks_and_blank_lines_are_no_part_of_a_row(lines: Path) -> None:
    found, tally = read(
        lines,
        b'\xef\xbb\xbf{"question": "a", "answer": 1}\r\n\r\n  \n{"question": "b", "answer": 2}',
    )
    assert [(row.where.rpartition(":")[2], row.columns) for row in found] == [
        ("1", {"question": "a", "answer": 1}),
        ("4", {"question": "b", "answer": 2}),
    ]
    assert (tally.rows, tally.bad) == (2, 0)


def test_only_a_line_feed_ends_a_row(lines: Path) -> None:
    data = '{"question": "a\u2028b\u0085c", "answer": "\\u0000"}\n'
    found, _ = read(lines, data.encode())
    assert found[0].columns == {"question": "a\u2028b\u0085c", "answer": "\x00"}


GOOD = b'{"question": "a", "answer": 1}\n'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"answer": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b'{"answer": NaN}', "NaN is no JSON number"),
        (b'{"answer": -Infinity}', "-Infinity is no JSON number"),
        (b'{"answer": 1e999}', "the number 1e999 is too large"),
        (b"[" * 10**5 + b"]" * 10**5, "nested too deeply"),
        (b'{"question": "a", "question": "b"}', "the key 'question' stands twice"),
        (GOOD.strip() + b" garbage", "not JSON at column 32: Extra data"),
        (b"[" + GOOD.strip() + b"]", "a list; a line is one object"),
        (b'"text"', "text; a line is one object"),
    ],
)
def test_a_line_that_is_no_object_is_left_out_and_told(
    lines: Path, line: bytes, words: str
) -> None:
    found, tally = read(lines, GOOD + line + b"\n" + GOOD)
    assert [row.where for row in found] == [f"{lines}:1", f"{lines}:3"]
    assert (tally.rows, tally.bad) == (3, 1)
    assert tally.first.startswith(f"{lines}:2: ")
    assert words in tally.first


@pytest.mark.parametrize("name", ["q.jsonl", "q.csv"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (GOOD + b'{"question": "\xe9"}', r":2: not UTF-8: byte 0xe9 at byte 15 .*save .*as UTF-8"),
        (GOOD.decode().encode("utf-16"), r":1: not UTF-8"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"PAR1\x15\x04", "a Parquet file; name it as parquet:"),
    ],
)
def test_a_file_that_is_no_text_is_refused(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^task\.name = .*{words}"):
        read(tmp_path / name, data)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    tally = Tally(setting="task.name = 'jsonl:x'")
    with pytest.raises(ConfigError, match=r"task\.name = 'jsonl:x': no such file"):
        text.jsonl(tmp_path / "x", tally)
    with pytest.raises(ConfigError, match=r"is a folder; .* as hf:"):
        text.csv(tmp_path, tally)


def test_every_value_of_a_csv_file_is_text_as_it_stands(table: Path) -> None:
    found, tally = read(table, b'question,answer,"a ""b"""\r\n"one,\ntwo",007,\r\n\r\nq,1.50,x\r\n')
    assert [dict(row.columns) for row in found] == [
        {"question": "one,\ntwo", "answer": "007", 'a "b"': ""},
        {"question": "q", "answer": "1.50", 'a "b"': "x"},
    ]
    # A row is named by the line on which it begins.
    assert [row.where for row in found] == [f"{table}:2", f"{table}:5"]
    assert tally.rows == 2


def test_a_record_of_other_length_than_the_header_is_left_out(table: Path) -> None:
    found, tally = read(table, b"question,answer\na,1\nb\nc,3\n")
    assert [row.columns["question"] for row in found] == ["a", "c"]
    assert tally.first == f"{table}:3: 1 fields, and the header has 2"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a,b,a\n1,2,3\n", "'a' stands there twice"),
        (b"a,,c\n1,2,3\n", "'' stands there as a name"),
        (b'a,b\n1,2\n3,"never closed\n5,6\n', r":3: unexpected end of data"),
    ],
)
def test_a_csv_file_that_is_none_is_refused(table: Path, data: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(table, data)


FIELDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)


@given(records=st.lists(st.lists(FIELDS, min_size=2, max_size=2), max_size=5))
def test_what_a_csv_writer_writes_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, records: list[list[str]]
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["question", "answer"], *records])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    found, tally = read(path, out.getvalue().encode())
    assert [list(row.columns.values()) for row in found] == records
    assert tally.bad == 0
