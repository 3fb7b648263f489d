"""Reading a task's rows: what a file may hold, and the row and column of what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.config import TaskConfig
from sppo.errors import ConfigError
from sppo.tasks import rows


def read(folder: Path, data: bytes) -> list[rows.Row]:
    path = folder / "q.jsonl"
    path.write_bytes(data)
    return rows.read(TaskConfig(name=f"jsonl:{path}"))


def test_line_ends_marks_and_blank_lines_are_no_part_of_a_row(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        b'\xef\xbb\xbf{"question": "a", "answer": 1}\r\n\r\n  \n{"question": "b", "answer": 2}',
    )
    assert [(row.where.rpartition(":")[2], row.columns) for row in found] == [
        ("1", {"question": "a", "answer": 1}),
        ("4", {"question": "b", "answer": 2}),
    ]


def test_only_a_line_feed_ends_a_row(tmp_path: Path) -> None:
    text = '{"question": "a\u2028b\u0085c", "answer": "\\u0000"}\n'
    assert read(tmp_path, text.encode())[0].columns == {
        "question": "a\u2028b\u0085c",
        "answer": "\x00",
    }


def test_numbers_at_the_edge_of_64_bits_are_carried(tmp_path: Path) -> None:
    found = read(
        tmp_path, f'{{"question": "q", "answer": [{2**64 - 1}, {-(2**63)}, 1e308]}}'.encode()
    )
    assert found[0].columns["answer"] == [2**64 - 1, -(2**63), 1e308]


GOOD = b'{"question": "a", "answer": 1}\n'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            GOOD + b'{"question": "a", "answer": 18446744073709551616}',
            r":2: column 'answer': .*64 bits.*as text",
        ),
        (
            GOOD + b'{"question": "a", "answer": 1, "x": [{"y": -9223372036854775809}]}',
            r":2: column 'x': .*64 bits",
        ),
        (b'{"question": "a", "answer": ' + b"9" * 5000 + b"}", r":1: .*4300 digits"),
        (b'{"question": "a", "answer": NaN}', r":1: NaN is no JSON number"),
        (b'{"question": "a", "answer": -Infinity}', r":1: -Infinity is no JSON number"),
        (b'{"question": "a", "answer": 1e999}', r":1: the number 1e999 is too large"),
        (
            b'{"question": "a\\ud800", "answer": 1}',
            r":1: column 'question': half of a surrogate pair",
        ),
        (
            b'{"question": "a", "answer": {"\\udfff": 1}}',
            r":1: column 'answer': half of a surrogate pair",
        ),
        (
            b'{"question": "a", "answer": ' + b"[" * 101 + b"]" * 101 + b"}",
            r":1: column 'answer': nested more than 100",
        ),
        (
            b'{"question": "a", "answer": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
            r":1: nested too deeply",
        ),
        (
            b'{"question": "a", "question": "b", "answer": 1}',
            r":1: the key 'question' stands twice",
        ),
        (GOOD + b'{"question": "\xe9", "answer": 1}', r":2: not UTF-8: byte 0xe9"),
        ('{"question": "a", "answer": 1}'.encode("utf-16"), r":1: not UTF-8"),
        (GOOD + GOOD.strip() + b" garbage", r":2: not JSON at column 32: Extra data"),
        (GOOD.replace(b"\n", b"\r") * 2, r":1: not JSON"),
        (b"[" + GOOD.strip() + b"]", r":1: a list; a line is one object"),
        (b'{\n"question": "a",\n"answer": 1}', r":1: not JSON.*a line is one object"),
        (b'"text"', r":1: text; a line is one object"),
        (b'{"question": "a"}', r":1: no answer"),
        (b"\n \n", "holds no rows"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"PAR1\x15\x04", "a Parquet file"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_row(
    tmp_path: Path, data: bytes, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, data)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        rows.read(TaskConfig(name=f"jsonl:{tmp_path}"))
