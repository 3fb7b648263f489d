"""Requests to stop: SIGINT (Ctrl-C), SIGTERM (a batch system, `down`), SIGHUP (the terminal was
closed); and a deadline for what cannot be asked to stop.

One that was ignored when this process began stays ignored, here and in what it starts: so `nohup`
is undone by nobody, and neither is a shell that starts a job in the background.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

IGNORED = frozenset(s for s in SIGNALS if signal.getsignal(s) == signal.SIG_IGN)
"""Those that were ignored when this module was imported, which is before anything else sets
signals.
"""


def catch(note: Callable[[str], None]) -> Callable[[], None]:
    """From here on a request calls `note` with the signal's name; returns what puts back what was
    there before.

    Called again, it puts this in place again, over a library's own. Python hands signals to the
    main thread alone: elsewhere nothing is caught.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {s: signal.getsignal(s) for s in SIGNALS}

    def take(number: int, _: object) -> None:
        note(signal.Signals(number).name)

    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN if each in IGNORED else take)

    def undo() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    return undo


@contextmanager
def interrupting() -> Iterator[None]:
    """Inside, each of them raises KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    undo = catch(interrupt)
    try:
        yield
    finally:
        undo()


@contextmanager
def within(seconds: float, late: Exception) -> Iterator[None]:
    """What takes longer inside is broken off by a signal, and `late` is raised. For the main
    thread.
    """

    def over(*_: object) -> None:
        raise late

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes started inside never see a closed terminal: their parent does, and ends them when
    it has saved.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])


def ignore(signals: Iterable[signal.Signals] = SIGNALS) -> None:
    """In a process that another one ends: a signal to the whole process group is for that one to
    answer.
    """
    for each in signals:
        signal.signal(each, signal.SIG_IGN)


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """From here on this process gets `number` when the thread that started it ends, however that
    ends.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def end_with_founder() -> None:
    """In a process that Python's `multiprocessing` began: from here on it is killed when the thread
    that began it ends, and so is what its main thread forks. Anywhere else nothing.
    """
    import multiprocessing  # not above: a sandbox imports this module for each program

    if multiprocessing.parent_process() is None:
        return
    end_with_parent()
    by_main: list[bool] = []

    def before() -> None:
        by_main[:] = [threading.current_thread() is threading.main_thread()]

    def in_child() -> None:
        if by_main == [True]:
            end_with_parent()

    os.register_at_fork(before=before, after_in_child=in_child)
