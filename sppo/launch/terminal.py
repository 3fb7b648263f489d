"""The terminal is for our words: what libraries print while a run is up goes to a log."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def make_usable() -> None:
    """Before anything is printed: streams that were closed are empty, and no character ends the
    program.

    A process that begins without standard streams would give their numbers to the next files it
    opens, and what it starts would print into those.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - as long as this process
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


@contextmanager
def kept_for_us(log: Path, words: TextIO | None = None) -> Iterator[TextIO]:
    """Inside, all that this process and its children print goes to `log`; yields the terminal, for
    our own words: where `words` would go, else standard output.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    number, encoding = (words.fileno(), words.encoding) if words else (1, sys.stdout.encoding)
    terminal = os.fdopen(os.dup(number), "w", encoding=encoding, errors="replace")
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.getLogger().addHandler(handler)
    try:
        yield terminal
    finally:
        logging.getLogger().removeHandler(handler)
        for number, fd in zip((1, 2), saved, strict=True):
            (sys.stdout, sys.stderr)[number - 1].flush()
            os.dup2(fd, number)
            os.close(fd)
        terminal.close()
