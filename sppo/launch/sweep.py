"""The processes of a role on this machine, found and ended whoever is their parent now."""

from __future__ import annotations

import logging
from pathlib import Path

import psutil

from sppo import marks
from sppo.launch import run_dir as run_dirs

log = logging.getLogger(__name__)


def role_processes(run_dir: Path, name: str) -> list[psutil.Process]:
    """The process of a role, first, and those that it has started, whoever is their parent now."""
    found = [p for p in [run_dirs.role_process(run_dir, name)] if p is not None]
    for process in psutil.process_iter():
        try:
            if process.environ().get(marks.VARIABLE) == marks.mark(run_dir, name):
                found.append(process)
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return found


def sweep_here(run_dir: Path, name: str) -> None:
    """End what a role has left running on this machine."""
    ended = []
    for process in role_processes(run_dir, name):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
        log.info("process %d of %s is ended", process.pid, name)
        ended.append(process)
    psutil.wait_procs(ended, timeout=5)
    marks.remove_shared_memory(marks.mark(run_dir, name))
