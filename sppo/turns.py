"""Turns on a GPU that learner and engines share, by locks on two files of this machine.

    engines together, or the learner alone, hold `gpu`
    the learner that wants it holds `wish`; engines that see it finish, sleep and let go of `gpu`

The kernel lets go of the locks of a process that is gone, however it ended: a role that dies keeps
nobody waiting. A child that it has forked holds them until it is gone too.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sppo import locks

LOOK_S = 0.1


class Turns:
    """Those of one run on this machine; `run` names it alike for all of its roles.

    with turns.alone(check): ...                                   # the learner
    while not turns.enter(): ...;  turns.wanted;  turns.leave()    # an engine
    """

    def __init__(self, run: str) -> None:
        folder = Path(tempfile.gettempdir()) / f"sppo-{os.getuid()}-roles"
        folder.mkdir(mode=0o700, exist_ok=True)
        name = hashlib.sha256(run.encode()).hexdigest()[:16]
        self._wish, self._gpu = folder / f"{name}.wish", folder / f"{name}.gpu"
        self._held: int | None = None

    @contextmanager
    def alone(self, while_waiting: Callable[[], None]) -> Iterator[None]:
        """No engine has the GPU inside. `while_waiting` is called some times a second, and may
        raise to end the wait.
        """
        with _taken(self._wish, while_waiting), _taken(self._gpu, while_waiting):
            yield

    @property
    def wanted(self) -> bool:
        """Whether the learner wants the GPU, or has it."""
        try:
            lock = locks.take(self._wish, shared=True)
        except locks.Held:
            return True
        locks.release(lock)
        return False

    def enter(self) -> bool:
        """Have the GPU together with other engines, unless the learner wants it."""
        if self.wanted:
            return False
        try:
            self._held = locks.take(self._gpu, shared=True)
        except locks.Held:
            return False
        return True

    def leave(self) -> None:
        """Let go of it, if this engine has it."""
        if self._held is not None:
            locks.release(self._held)
            self._held = None


@contextmanager
def _taken(file: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    while True:
        try:
            lock = locks.take(file)
            break
        except locks.Held:
            while_waiting()
            time.sleep(LOOK_S)
    try:
        yield
    finally:
        locks.release(lock)
