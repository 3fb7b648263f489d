"""A process of ours with all that it started: how it fares, how it ended, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import psutil


class Child:
    """One process in a session of its own.

    child = Child(subprocess.Popen(..., start_new_session=True))
    child.fate()          # "" while it runs, else how it ended
    child.end()
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.ended = False

    def fate(self) -> str:
        """How it ended, in words; empty while it runs."""
        code = self._popen.poll()
        return "" if code is None else _words(code)

    def end(self) -> None:
        """Kill the process and all that it started. May be repeated."""
        if self.ended:
            return
        self.ended = True
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):  # some have sessions of their own
            family = psutil.Process(self._popen.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._popen.wait()

    def resident(self) -> int:
        """Bytes of memory that it holds; 0 once it has ended."""
        try:
            return int(psutil.Process(self._popen.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def cpu_s(self) -> float:
        """Seconds that it computed, with children that it has waited for."""
        try:
            return float(sum(psutil.Process(self._popen.pid).cpu_times()[:4]))
        except psutil.Error:
            return 0.0


def _words(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
