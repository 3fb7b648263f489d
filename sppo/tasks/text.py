"""Rows of text files: JSON lines and CSV, read strictly, with the line of what cannot be read."""

from __future__ import annotations

import csv as csvs
import io
import json
from pathlib import Path
from typing import Any

from sppo import strict_json
from sppo.config import utf8
from sppo.errors import ConfigError
from sppo.tasks.rows import Row, Tally, Unusable, kind

LONGEST_FIELD = 16 * 2**20
"""Characters of one field of a CSV file."""
_OTHER = {b"\x1f\x8b": "compressed with gzip; unpack it",
          b"PK\x03\x04": "a zip archive; unpack it",
          b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it",
          b"BZh": "compressed with bzip2; unpack it",
          b"PAR1": "a Parquet file; name it as parquet:<file>"}  # fmt: skip


def jsonl(path: Path, tally: Tally) -> list[Row]:
    """An object on each line. Raises ConfigError for a file that is not there or no text."""
    rows = []
    for number, line in enumerate(_text(path, tally.setting).split("\n"), start=1):
        if not line or line.isspace():
            continue
        tally.rows += 1
        where = f"{path}:{number}"
        try:
            rows.append(Row(where=where, columns=_object(line)))
        except Unusable as error:
            tally.leave_out(where, error)
    return rows


def csv(path: Path, tally: Tally) -> list[Row]:
    """A header of column names, then a record for each row; every value is text.

    Raises ConfigError for a file that is not there, no text, or has no such header.
    """
    csvs.field_size_limit(LONGEST_FIELD)
    reader = csvs.reader(io.StringIO(_text(path, tally.setting), newline=""), strict=True)
    rows: list[Row] = []
    names: list[str] = []
    line = 1  # where the next record begins
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return rows
        except csvs.Error as error:  # a quote that is not closed takes the rest of the file along
            raise ConfigError(f"{tally.setting}: {path}:{line}: {error}") from error
        where, line = f"{path}:{line}", reader.line_num + 1
        if not names:
            names = _header(record, tally.setting)
        elif record:
            tally.rows += 1
            if len(record) == len(names):
                rows.append(Row(where=where, columns=dict(zip(names, record, strict=True))))
            else:
                tally.leave_out(where, f"{len(record)} fields, and the header has {len(names)}")


def _header(names: list[str], setting: str) -> list[str]:
    if twice := sorted({name for name in names if names.count(name) > 1 or not name.strip()}):
        raise ConfigError(
            f"{setting}: the first line is to name the columns, and {twice[0]!r} stands there "
            f"{'twice' if twice[0].strip() else 'as a name'}"
        )
    return names


def _text(path: Path, setting: str) -> str:
    if path.is_dir():
        raise ConfigError(f"{setting}: is a folder; name a file in it, or all of it as hf:{path}")
    if not path.is_file():
        raise ConfigError(f"{setting}: no such file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting} cannot be read: {error.strerror}") from error
    for magic, what in _OTHER.items():
        if data.startswith(magic):
            raise ConfigError(f"{setting}: the file is {what}")
    try:
        return utf8(data, str(path))
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _object(line: str) -> dict[str, Any]:
    try:
        entry = strict_json.loads(line)
    except json.JSONDecodeError as error:
        raise Unusable(
            f"not JSON at column {error.colno}: {error.msg}; a line is one object"
        ) from error
    except ValueError as error:
        raise Unusable(str(error)) from error
    if not isinstance(entry, dict):
        raise Unusable(f"{kind(entry)}; a line is one object, with the columns as its fields")
    return entry
