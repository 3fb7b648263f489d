"""What belongs to a role's process and must go with it: all that it starts carries a mark in its
environment, and names its shared memory after it.

vLLM's processes pass messages through shared memory that nobody removes when they are killed. In a
process that carries a mark it is named after it, so that whoever ends the role can remove it too.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

from sppo import stop

VARIABLE = "_SPPO_ROLE"
_FOLDER = Path("/dev/shm")
_WITH = "with."


def mark(run_dir: Path, role: str) -> str:
    """Names a role of a run on this machine."""
    return f"{run_dir.resolve()}:{role}"


def name_shared_memory() -> None:
    """From here on this process names its shared memory and semaphores after the mark in its
    environment, if any.
    """
    found = os.environ.get(VARIABLE)
    module: Any = shared_memory
    # Private names of the standard library (3.11 to 3.13). Without them things are named as ever
    # and may be left.
    if found and hasattr(module, "_SHM_NAME_PREFIX") and hasattr(module, "_SHM_SAFE_NAME_LENGTH"):
        module._SHM_NAME_PREFIX = f"/{_prefix(found)}"
        module._SHM_SAFE_NAME_LENGTH = len(module._SHM_NAME_PREFIX) + 16
    process: Any = multiprocessing.current_process()
    if found and "semprefix" in getattr(process, "_config", {}):
        process._config["semprefix"] = (
            f"/{_prefix(found)}mp"  # inherited by the processes that this one starts
        )


def goes_too(name: str) -> None:
    """Shared memory of this process that others have named is removed with its mark, if it carries
    one. `name`: of a file in /dev/shm.
    """
    found = os.environ.get(VARIABLE)
    if found and _FOLDER.is_dir():
        (_FOLDER / f"{_prefix(found)}{_WITH}{name}").touch()


def ignore_interrupts() -> None:
    """In a process that a role has started: Ctrl-C and a closed terminal reach everyone, and the
    role decides what follows.
    """
    child = multiprocessing.parent_process() is not None
    if child and os.environ.get(VARIABLE) and threading.current_thread() is threading.main_thread():
        stop.ignore([signal.SIGINT, signal.SIGHUP])


def remove_shared_memory(found: str) -> list[str]:
    """Remove what the processes of a mark have left, once they are gone; returns the names."""
    names = left_shared_memory(found)
    for name in names:
        if name.startswith(with_it := f"{_prefix(found)}{_WITH}"):
            (_FOLDER / name.removeprefix(with_it)).unlink(missing_ok=True)
        (_FOLDER / name).unlink(missing_ok=True)
    return names


def left_shared_memory(found: str) -> list[str]:
    """Names of shared memory and semaphores that belong to a mark."""
    patterns = (f"{_prefix(found)}*", f"sem.{_prefix(found)}*")
    return (
        sorted(p.name for pattern in patterns for p in _FOLDER.glob(pattern))
        if _FOLDER.is_dir()
        else []
    )


def _prefix(found: str) -> str:
    return f"sppo-{hashlib.sha256(found.encode()).hexdigest()[:12]}-"
