"""Parquet files: every type that Arrow has becomes one that JSON has."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from sppo.errors import ConfigError
from sppo.tasks import tables
from sppo.tasks.rows import Row, Tally


def read(path: Path, columns: dict[str, Any]) -> list[Row]:
    parquet.write_table(pa.table(columns), path)
    tally = Tally(setting="task.name")
    found = tables.rows(tables.parquet(path, "task.name"), "q.parquet", tally)
    assert tally.rows == len(found)
    return found


def test_rows_are_numbered_and_have_their_columns(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "u"}]
    found = read(tmp_path / "a=1.parquet", {"prompt": [chat, chat], "n": [1, None], "x": [0.5, 2]})
    assert [row.where for row in found] == ["q.parquet, row 1", "q.parquet, row 2"]
    assert found[0].columns == {"prompt": chat, "n": 1, "x": 0.5}
    assert found[1].columns == {"prompt": chat, "n": None, "x": 2.0}


def test_what_json_has_no_type_for_becomes_null_or_text(tmp_path: Path) -> None:
    found = read(
        tmp_path / "q.parquet",
        {
            "score": [float("nan")],
            "when": [datetime.date(2024, 5, 1)],
            "price": [decimal.Decimal("1.50")],
            "deep": [[{"score": float("nan"), "when": datetime.datetime(2024, 5, 1, 12)}]],
            "tags": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        },
    )
    assert found[0].columns == {
        "score": None,
        "when": "2024-05-01",
        "price": "1.50",
        "deep": [{"score": None, "when": "2024-05-01 12:00:00"}],
        "tags": [["a", 1]],
    }


def test_columns_of_bytes_are_left_out(tmp_path: Path) -> None:
    found = read(
        tmp_path / "q.parquet",
        {"question": ["q"], "image": [{"bytes": b"\x89PNG", "path": "a"}], "raw": [b"x"]},
    )
    assert found[0].columns == {"question": "q"}


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "q.parquet"
    file.write_bytes(b"question,answer\n1,2\n")
    with pytest.raises(ConfigError, match=r"^task\.name: cannot be read as Parquet: "):
        tables.parquet(file, "task.name")
    with pytest.raises(ConfigError, match="no such file"):
        tables.parquet(tmp_path / "none", "task.name")
    with pytest.raises(ConfigError, match="is a folder"):
        tables.parquet(tmp_path, "task.name")


def test_two_columns_of_one_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(ConfigError, match="two columns are called 'a'"):
        tables.rows(table, "q", Tally(setting="task.name"))
