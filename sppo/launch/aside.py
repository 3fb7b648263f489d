"""Work in a process of its own that ends, and with it goes what the work has imported.

    found = aside.call(lambda: checks(config))

The process is a fork: nothing has to be sent there, what it prints goes where this process prints,
and it begins at once.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

from sppo import stop
from sppo.errors import SppoError

T = TypeVar("T")

HEAVY = frozenset({"torch", "transformers"})
GRACE_S = 2.0
"""For the other process to end by itself when this one is interrupted: Ctrl-C reaches both."""


class _Elsewhere(Exception):  # noqa: N818 - no error of its own
    """Carries the traceback of the other process."""


def call(work: Callable[[], T]) -> T:
    """What `work` returns or raises; the error's cause is its traceback there.

    Where the heavy libraries are loaded there is nothing to spare, and beside other threads a fork
    is not safe: there the work is done in this process. Raises SppoError if the process is ended.
    """
    if HEAVY & sys.modules.keys() or threading.active_count() > 1:
        return work()
    code, answer = _fork(lambda: _outcome(work))
    if not answer:
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        raise SppoError(f"the process of the checks ended with {how}; is there memory enough?")
    value, error, text = pickle.loads(answer)
    if isinstance(error, tuple):  # a kind that this process may not know
        name, words = error
        error = type(name, (Exception,), {})(words)
    if error is not None:
        raise error from _Elsewhere(f"\n{text}")
    result: T = value
    return result


def _outcome(work: Callable[[], object]) -> bytes:
    """What `work` returns, or its error and where it was raised."""
    try:
        return pickle.dumps((work(), None, ""))
    except Exception as error:  # noqa: BLE001 - it is raised on the other side
        told: object = (type(error).__name__, str(error))
        if isinstance(error, SppoError):
            told = error
        elif isinstance(error, OSError):
            told = OSError(str(error))
        return pickle.dumps((None, told, traceback.format_exc()))


def _fork(work: Callable[[], bytes]) -> tuple[int, bytes]:
    """Exit code and answer of `work` in a child; no answer if that was ended."""
    _flush()
    parent, (reader, writer) = os.getpid(), os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            stop.end_with_parent()
            if os.getppid() == parent:  # it may have ended before the line above
                answer = work()
                _flush()
                with os.fdopen(writer, "wb") as pipe:
                    pipe.write(len(answer).to_bytes(8, "little") + answer)
                code = 0
        finally:
            os._exit(code)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            # By its length: what the work has forked may hold the pipe open for ever.
            told = int.from_bytes(pipe.read(8), "little")
            answer = pipe.read(told)
    except BaseException:
        _end(child)
        raise
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), answer if len(answer) == told else b""


def _end(child: int) -> None:
    deadline = time.monotonic() + GRACE_S
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        time.sleep(0.02)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
