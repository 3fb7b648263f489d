"""Verdicts of math-verify, each with a deadline that nothing outlives.

math-verify computes in a process of its own that is forked when it is first needed. One that is
late is killed, in whatever it is, and the next verdict has a new one. The deadline is one of its
CPU time, so that no reward depends on what else the machine does; what does not compute at all has
`PATIENCE` times as long.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from functools import cache

from sppo import stop

MEMORY = 2 << 30
"""Bytes of address space beyond what the process has when it is forked."""
MOST = 1 << 16
PATIENCE = 10
_LOOK_S = 0.05


class Child:
    """Asks math-verify, and waits until it has computed for `deadline_s`.

    child = Child(deadline_s=1.0)
    child.equal("x^2", "x*x")      # True, False, or None: no verdict in time
    child.close()
    """

    def __init__(self, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._pid = 0
        self._channel: socket.socket | None = None

    @staticmethod
    @cache
    def load() -> None:
        """Import math-verify here and use it once, so that a fork has all that it makes at first:
        no deadline is spent on that.
        """
        import math_verify  # noqa: F401

        logging.getLogger("math_verify").setLevel(logging.ERROR)
        for answer in (r"\sum_{k=1}^{3} k + \sqrt{x}", r"\frac{1}{2}x^{2} \le \{1\}"):
            _verdict(r"\int_0^1 \sin(t) dt", answer)

    def equal(self, reference: str, answer: str) -> bool | None:
        """Whether math-verify finds them equal; None if it did not say so in time, or died of
        it.
        """
        body = json.dumps([reference, answer]).encode()
        if len(body) > MOST:
            return None
        if self._channel is None:
            self._start()
        assert self._channel is not None
        try:
            self._channel.send(body)
            said = self._channel.recv(1) if self._answers(self._channel) else b""
        except ConnectionError:
            said = b""
        if said not in (b"0", b"1"):
            self.close()
            return None
        return said == b"1"

    def _answers(self, channel: socket.socket) -> bool:
        """Whether there is something to read before the deadline."""
        begun, used = time.monotonic(), _cpu_s(self._pid)
        while not select.select([channel], [], [], min(_LOOK_S, self._deadline_s))[0]:
            waited = time.monotonic() - begun
            if waited > PATIENCE * self._deadline_s:
                return False
            if _cpu_s(self._pid) - used > self._deadline_s:
                return False
        return True

    def close(self) -> None:
        """Kill the process. May be repeated."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _start(self) -> None:
        self.load()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                ours.close()
                _serve(theirs, parent)
            finally:
                os._exit(0)
        theirs.close()
        self._channel = ours


def _cpu_s(pid: int) -> float:
    """Seconds that a process has computed."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(channel: socket.socket, parent: int) -> None:
    """In the child: answer until the other side closes."""
    stop.end_with_parent()
    if os.getppid() != parent:
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = used + MEMORY if hard == resource.RLIM_INFINITY else min(hard, used + MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    while body := channel.recv(MOST):
        reference, answer = json.loads(body)
        channel.send(b"1" if _verdict(reference, answer) else b"0")


def _verdict(reference: str, answer: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    config = [LatexExtractionConfig()]
    try:
        read = [
            parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=None)
            for text in (reference, answer)
        ]
        if not all(read):
            return False
        return bool(verify(*read, float_rounding=15, timeout_seconds=None))
    except (Exception, RecursionError):  # noqa: BLE001 - whatever it does with what a model wrote
        return False
