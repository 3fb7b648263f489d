"""What a call takes: seconds and memory, on a CPU or a GPU."""

from __future__ import annotations

import ctypes
import gc
import time
from pathlib import Path

import torch


class Clock:
    """A stopwatch that waits for the GPU, where there is one."""

    def __init__(self, gpu: bool) -> None:
        self._gpu = gpu

    def start(self) -> None:
        """Begin to count."""
        self._started = self._now()

    def lap(self) -> float:
        """Seconds since the start or the last lap."""
        before, self._started = self._started, self._now()
        return self._started - before

    def _now(self) -> float:
        if self._gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


class Memory:
    """What a call adds at its peak, in MiB: None where the system does not let us see it."""

    def __init__(self, gpu: bool) -> None:
        self._gpu = gpu
        self._before: float | None = None

    def reset(self) -> None:
        """Count from what is in use now."""
        gc.collect()
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated() / 2**20
            return
        try:
            # What earlier calls left behind would hide what this one needs.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
            self._before = _resident_mib("VmRSS")
        except OSError:
            self._before = None

    def extra_mib(self) -> float | None:
        """Peak since `reset` above what was in use then."""
        if self._before is None:
            return None
        peak = torch.cuda.max_memory_allocated() / 2**20 if self._gpu else _resident_mib("VmHWM")
        return max(peak - self._before, 0.0)


def _resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
