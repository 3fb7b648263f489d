"""What belongs to a role's process and must go with it: all that it starts carries a mark in its environment, and names
its shared memory after it.

vLLM's processes pass messages through shared memory that nobody removes when they are killed. In a process that carries
a mark it is named after it, so that whoever ends the role can remove it too.
"""

from __future__ import annotations

import hashlib
import os
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

VARIABLE = "_SPPO_ROLE"
_FOLDER = Path("/dev/shm")


def mark(run_dir: Path, role: str) -> str:
    """Names a role of a run on this machine."""
    return f"{run_dir.resolve()}:{role}"


def name_shared_memory() -> None:
    """From here on this process names its shared memory after the mark in its environment, if there is one."""
    found = os.environ.get(VARIABLE)
    module: Any = shared_memory
    # Two private names of the standard library (3.11 to 3.13). Without them the memory is named as ever.
    if found and hasattr(module, "_SHM_NAME_PREFIX") and hasattr(module, "_SHM_SAFE_NAME_LENGTH"):
        module._SHM_NAME_PREFIX = f"/{_prefix(found)}"
        module._SHM_SAFE_NAME_LENGTH = len(module._SHM_NAME_PREFIX) + 16


def remove_shared_memory(found: str) -> list[str]:
    """Remove what the processes of a mark have left, once they are gone; returns the names."""
    left = sorted(_FOLDER.glob(f"{_prefix(found)}*")) if _FOLDER.is_dir() else []
    for path in left:
        path.unlink(missing_ok=True)
    return [path.name for path in left]


def left_shared_memory(found: str) -> list[str]:
    """Names of shared memory that belongs to a mark."""
    return sorted(p.name for p in _FOLDER.glob(f"{_prefix(found)}*")) if _FOLDER.is_dir() else []


def _prefix(found: str) -> str:
    return f"sppo-{hashlib.sha256(found.encode()).hexdigest()[:12]}-"
