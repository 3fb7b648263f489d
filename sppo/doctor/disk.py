"""The disk of the run directory: may it be written, has it room, how fast is it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from tempfile import NamedTemporaryFile

from sppo.doctor.findings import Finding, Run, fail, ok, warn
from sppo.launch import machine

TRIED = 32 << 20
"""Bytes that are written to measure the speed."""
SLOW = 50e6
"""Bytes a second below which checkpoints and weights on this disk are felt."""
SLOW_FLUSH_S = 0.05
"""The embedded broker flushes before each answer."""
MASTER = 4
GIB = 1 << 30


def disk(run: Run) -> list[Finding]:
    """Room, then speed."""
    folder = nearest(run.folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        words = f"{folder}, where {run.folder} would be made, cannot be written"
        return [fail("disk", words, "another --run-dir, or chown")]
    machine.check_disk(run.config, folder)  # raises what a start would say
    return [_space(run, folder), _speed(folder)]


def nearest(folder: Path) -> Path:
    """The folder itself, or the one above it that is there."""
    folder = folder.absolute()
    return next(f for f in (folder, *folder.parents) if f.is_dir())


def _space(run: Run, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    kept = run.config.learner.keep_checkpoints
    needs = (kept + 1) * _checkpoint(run)
    said = f"{folder} has {free / GIB:.1f} GiB free"
    if not needs:
        return ok("disk", said)
    said += f"; {kept} checkpoints and the one that is written take {needs / GIB:.1f}"
    if needs > free:
        return warn("disk", said, "another --run-dir, or a lower learner.keep_checkpoints")
    return ok("disk", said)


def _checkpoint(run: Run) -> int:
    """Bytes of one: float32 weights and the optimizer's memory; 0 for a model that nobody knows."""
    from sppo.errors import SppoError
    from sppo.plan import learner

    try:
        return learner.stored(run.config)
    except SppoError:
        return 0


def _speed(folder: Path) -> Finding:
    """One flushed write of much, and some of little."""
    block = os.urandom(1 << 20)
    with NamedTemporaryFile(dir=folder, prefix=".sppo-doctor-") as file:
        began = time.perf_counter()
        for _ in range(TRIED >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        rate = TRIED / (time.perf_counter() - began)
        flushes = sorted(_flushed(file.fileno()) for _ in range(9))
    said = f"{rate / 1e6:,.0f} MB/s written, {flushes[4] * 1e3:.1f} ms for a flush"
    if rate < SLOW or flushes[4] > SLOW_FLUSH_S:
        return warn("disk speed", said, "a --run-dir on a local disk: every ticket and group is "
                    "flushed there before the broker answers")  # fmt: skip
    return ok("disk speed", said)


def _flushed(descriptor: int) -> float:
    began = time.perf_counter()
    os.write(descriptor, b"x" * 512)
    os.fsync(descriptor)
    return time.perf_counter() - began
