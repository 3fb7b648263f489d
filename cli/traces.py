"""An error that nobody foresaw: one line for a person, its traceback in a file."""

from __future__ import annotations

import traceback
from pathlib import Path


def keep(log: Path) -> str:
    """Where it is; must not hide the error, which may be a full disk."""
    try:
        with log.open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    except OSError as error:
        return f"the traceback could not be kept in {log}: {error.strerror}"
    return f"the traceback is in {log}"


def one_line(error: Exception) -> str:
    """What it is, on one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"
