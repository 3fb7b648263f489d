"""Locks that one process at a time holds on a file, here and on a shared file system.

The kernel lets go of a lock when the last process that has the file open is gone, however it ended.
What lies in the file says nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sppo.errors import ConfigError

AGAIN_S = 0.2


def own_folder(name: str) -> Path:
    """This user's folder of this name on this machine, for what its processes agree about. Raises
    ConfigError if another user has it.
    """
    folder = Path(tempfile.gettempdir()) / f"sppo-{os.getuid()}-{name}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.getuid()
        or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ):
        raise ConfigError(
            f"{folder} belongs to someone else or is open to others: remove it, or set TMPDIR"
        )
    return folder


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


def take_again(lock: int, *, shared: bool = False) -> None:
    """What `let_go` gave back, for the processes that have inherited it too. Raises Held."""
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Held(str(lock)) from None


def let_go(lock: int) -> None:
    """Of what `take` gave, for the processes that have inherited it too; the file stays open."""
    fcntl.flock(lock, fcntl.LOCK_UN)


def release(lock: int) -> None:
    """Let go of what `take` gave, and close it."""
    let_go(lock)
    os.close(lock)


@contextmanager
def inherited(lock: int) -> Iterator[None]:
    """Processes that Python's `multiprocessing` spawns inside inherit it, as forked ones do."""
    from multiprocessing import resource_tracker, util  # not above: `up --help` needs none

    resource_tracker.ensure_running()  # which is to hold nothing
    module: Any = util
    spawn = module.spawnv_passfds

    def passing(path: Any, args: Any, fds: Any) -> int:
        return int(spawn(path, args, [*fds, lock]))

    module.spawnv_passfds = passing
    try:
        yield
    finally:
        module.spawnv_passfds = spawn


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
