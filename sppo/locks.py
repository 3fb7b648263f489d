"""Locks that one process at a time holds on a file, here and on a shared file system.

The kernel lets go of a lock when the last process that has the file open is gone, however it ended.
What lies in the file says nothing.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AGAIN_S = 0.2


class Held(Exception):  # noqa: N818 - what happened; each caller says what it means
    """Another process holds the lock."""


def take(file: Path, *, wait_s: float = 0.0, shared: bool = False) -> int:
    """The descriptor that holds the lock until it is closed, in the processes that inherit it too.
    `shared`: together with others who take it so.

    Raises Held if it does not become free within `wait_s`, OSError if the file cannot be opened.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(lock)
                raise Held(str(file)) from None
            time.sleep(AGAIN_S)


def release(lock: int) -> None:
    """Let go of what `take` gave, for the processes that have inherited it too."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


@contextmanager
def held(file: Path, refusal: Exception) -> Iterator[None]:
    """Hold the lock inside. Raises `refusal` if another process holds it, OSError as `take`."""
    try:
        lock = take(file)
    except Held:
        raise refusal from None
    try:
        yield
    finally:
        os.close(lock)
