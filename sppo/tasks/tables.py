"""Rows of Arrow tables, which Parquet files and the `datasets` library give.

JSON has fewer types than Arrow: not-a-number becomes null, dates, times and decimals become text,
and columns of bytes (images, say) are left out.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppo.errors import ConfigError
from sppo.tasks.rows import Row, Tally

if TYPE_CHECKING:
    import pyarrow as pa

Convert = Callable[[Any], Any]
AS_TEXT = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal)


def parquet(path: Path, setting: str) -> pa.Table:
    """A file. Raises ConfigError if it is not there, or is no Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet as files

    if path.is_dir():
        raise ConfigError(f"{setting}: is a folder; name a file in it, or all of it as hf:{path}")
    if not path.is_file():
        raise ConfigError(f"{setting}: no such file")
    try:
        # By file object: a name such as a=1/b.parquet would add a column.
        with path.open("rb") as file:
            return files.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{setting}: cannot be read as Parquet: {_first_line(error)}") from error


def rows(table: pa.Table, name: str, tally: Tally) -> list[Row]:
    """Every row of a table. Raises ConfigError for two columns with one name."""
    names = table.column_names
    if twice := [column for column in names if names.count(column) > 1]:
        raise ConfigError(f"{tally.setting}: two columns are called {twice[0]!r}")
    kept = [n for n in names if not _has_bytes(table.schema.field(n).type)]
    columns = {n: _values(table.column(n)) for n in kept}
    tally.rows = table.num_rows
    return [
        Row(where=f"{name}, row {i + 1}", columns={n: columns[n][i] for n in kept})
        for i in range(table.num_rows)
    ]


def _values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    plain = _converter(column.type)
    return values if plain is None else [None if v is None else plain(v) for v in values]


def _converter(kind: pa.DataType) -> Convert | None:
    """What makes JSON of values that are not null; None where they are JSON as they are."""
    from pyarrow import types

    if getattr(kind, "extension_name", "") == "arrow.json":
        return json.loads
    if types.is_dictionary(kind):
        return _converter(kind.value_type)
    if types.is_map(kind):
        return _of_pairs(_converter(kind.key_type), _converter(kind.item_type))
    if types.is_struct(kind):
        inner = {kind.field(i).name: _converter(kind.field(i).type) for i in range(kind.num_fields)}
        return _of_fields(inner) if any(inner.values()) else None
    if kind.num_fields == 1:
        return _of_items(_converter(kind.field(0).type))
    easy = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean)
    return None if any(is_easy(kind) for is_easy in easy) else _scalar


def _scalar(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return str(value) if isinstance(value, AS_TEXT) else value


def _of_items(inner: Convert | None) -> Convert | None:
    if inner is None:
        return None
    return lambda items: [None if item is None else inner(item) for item in items]


def _of_fields(inner: Mapping[str, Convert | None]) -> Convert:
    def convert(fields: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value if value is None or (plain := inner[name]) is None else plain(value)
            for name, value in fields.items()
        }

    return convert


def _of_pairs(key: Convert | None, item: Convert | None) -> Convert:
    def convert(pairs: list[tuple[Any, Any]]) -> list[list[Any]]:
        return [[key(k) if key else k, item(v) if item and v is not None else v] for k, v in pairs]

    return convert


def _has_bytes(kind: pa.DataType) -> bool:
    from pyarrow import types

    binary = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return any(is_bytes(kind) for is_bytes in binary) or any(map(_has_bytes, inner))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
