"""Turns on a GPU that learner and engines share, by locks on two files of this machine.

    engines together, or the learner alone, hold `gpu`
    the learner that wants it holds `wish`; engines that see it finish, sleep and let go of `gpu`

The kernel lets go of the locks of a process that is gone, however it ended, and of those that its
children have inherited when these are gone too: a role that dies keeps nobody waiting. The process
in which an engine works inherits `gpu` (`kept_by_engine`), so that its memory is not taken for free
as long as it outlives a generator that was killed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sppo import locks

LOOK_S = 0.1


class Turns:
    """Those of one run on this machine; `run` names it alike for all of its roles.

    with turns.alone(check): ...                                   # the learner
    while not turns.enter(): ...;  turns.wanted;  turns.leave()    # an engine
    """

    def __init__(self, run: str) -> None:
        folder = locks.own_folder("roles")
        name = hashlib.sha256(run.encode()).hexdigest()[:16]
        self._wish, self._gpu = folder / f"{name}.wish", folder / f"{name}.gpu"
        self._held: int | None = None
        """Open from the first turn on, as whoever inherited it has the same one."""

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
            if self._held is None:
                self._held = locks.take(self._gpu, shared=True)
            else:
                locks.take_again(self._held, shared=True)
        except locks.Held:
            return False
        return True

    def kept_by_engine(self) -> AbstractContextManager[None]:
        """In a turn: processes that are begun inside have it too, until `leave` or their end."""
        assert self._held is not None, "enter() comes first"
        return locks.inherited(self._held)

    def leave(self) -> None:
        """Let go of it, if this engine has it."""
        if self._held is not None:
            locks.let_go(self._held)

    @property
    def of_learner(self) -> bool:
        """Whether the learner has the GPU now, and does not only want it."""
        try:
            lock = locks.take(self._gpu, shared=True)
        except locks.Held:
            return True
        locks.release(lock)
        return False


@contextmanager
def _taken(file: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    while True:
        try:
            lock = locks.take(file)
            break
        except locks.Held:
            while_waiting()
            time.sleep(LOOK_S)
    os.utime(lock)  # who tidies up a temporary folder takes what is old
    try:
        yield
    finally:
        locks.release(lock)
