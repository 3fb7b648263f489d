"""Runs programs in processes that can do nothing but compute, and ends them.

Python's own interpreter locks itself up before it runs a program (`jail.py`): Landlock for files, a
filter of system calls for processes, sockets and all else that reaches out, resource limits. There
is nothing to clean up behind it: it cannot write, and it cannot make another process.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sppo.scorer.code import landlock, seccomp

MOST_OUTPUT = 4 << 20
"""Bytes of output after which a program is ended."""
PATIENCE = 4
_PIECE = 1 << 16


_JAIL = Path(__file__).with_name("jail.py")
_PROBE = """
import os, socket
def tried(what, name):
    try:
        what()
    except OSError:
        return
    print(name)
tried(lambda: open(SEEN).close(), "files")
tried(lambda: socket.socket().close(), "sockets")
tried(lambda: os.fork() or os._exit(0), "processes")
print("end")
"""


def protections() -> dict[str, bool]:
    """What this kernel gives to a process without rights."""
    return {"landlock": landlock.version() > 0, "seccomp": seccomp.available()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended."""

    output: bytes
    code: int | None
    """Its exit code, negative for a signal; None if it was ended."""
    why: str = ""
    """Why it was ended: `late` or `output`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """Limits of one program. Raises OSError where a process cannot be started."""

    timeout_s: float
    memory: int
    """Bytes of address space."""

    def program(self, code: str, stdin: str) -> Outcome:
        """Run a program with this standard input."""
        process = self._start({"role": "program", "code": code}, stdin=True)
        return self._wait(process, stdin.encode(errors="replace"))

    def reach(self) -> list[str]:
        """What a program could reach: `files`, `sockets`, `processes`; tried, not asked.

        Raises RuntimeError where no program runs at all.
        """
        outcome = self.program(_PROBE.replace("SEEN", repr(str(Path(__file__).resolve()))), "")
        *reached, end = outcome.output.decode().split() or [""]
        if end != "end":
            ended = outcome.why or f"exit code {outcome.code}"
            raise RuntimeError(
                f"a program cannot be run within {self.timeout_s:g} s and "
                f"{self.memory >> 20} MiB: it ended with {ended}"
            )
        return reached

    def tests(self, code: str, tests: Mapping[str, Any]) -> Outcome:
        """Run a program and, in another process, tests that call it (see `judge.run`)."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            host = self._start({"role": "host", "code": code}, channel=theirs.fileno())
            theirs.close()
            try:
                judge = self._start({"role": "judge", **tests}, channel=ours.fileno())
                ours.close()
                return self._wait(judge, b"", host.pid)
            finally:
                _end(host)

    def _start(
        self, order: Mapping[str, Any], *, stdin: bool = False, channel: int | None = None
    ) -> subprocess.Popen[bytes]:
        descriptor = os.memfd_create("order")
        try:
            given = {
                **order,
                "channel": channel,
                "cpu_s": math.ceil(self.timeout_s) + 1,
                "memory": self.memory,
                "protections": [name for name, there in protections().items() if there],
            }
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(json.dumps(given).encode())
            os.lseek(descriptor, 0, os.SEEK_SET)
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_JAIL),
                 str(descriptor), str(os.getpid())],
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if order["role"] == "host" else subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                pass_fds=[descriptor] if channel is None else [descriptor, channel],
                start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(descriptor)

    def _wait(self, process: subprocess.Popen[bytes], stdin: bytes, *beside: int) -> Outcome:
        """Feed and read until the output ends, the time is over, or it is too much."""
        output, why = bytearray(), ""
        begun, pids = time.monotonic(), (process.pid, *beside)
        try:
            with selectors.DefaultSelector() as selector:
                assert process.stdout is not None
                selector.register(process.stdout, selectors.EVENT_READ)
                if process.stdin is not None:
                    os.set_blocking(process.stdin.fileno(), False)
                    selector.register(process.stdin, selectors.EVENT_WRITE)
                while not why and process.stdout in [key.fileobj for key in _keys(selector)]:
                    left = self._left(begun, pids)
                    for key, _ in selector.select(max(left, 0)):
                        if key.fileobj is process.stdin:
                            stdin = _feed(selector, process.stdin, stdin)
                        elif piece := os.read(key.fd, _PIECE):
                            output += piece
                        else:
                            selector.unregister(process.stdout)
                    why = "output" if len(output) > MOST_OUTPUT else "late" if left <= 0 else ""
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = None if why else process.wait(max(self._left(begun, pids), 0.01))
                return Outcome(output=bytes(output), code=code, why=why)
            return Outcome(output=bytes(output), code=None, why="late")
        finally:
            _end(process)

    def _left(self, begun: float, pids: Sequence[int]) -> float:
        """Seconds of the time limit that are left. Those that a process stood in the queue of a
        busy machine's cores do not count, up to `PATIENCE` limits of them.
        """
        passed = time.monotonic() - begun
        if passed >= self.timeout_s:
            passed -= min(PATIENCE * self.timeout_s, sum(map(_queued_s, pids)))
        return self.timeout_s - passed


def _queued_s(pid: int) -> float:
    """Seconds that the thread which waited longest for a core has waited; 0 where the kernel does
    not count them.
    """
    waited = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            counted = (thread / "schedstat").read_text(encoding="utf-8")
            waited = max(waited, int(counted.split()[1]))
    return waited / 1e9


def _keys(selector: selectors.BaseSelector) -> list[selectors.SelectorKey]:
    return list(selector.get_map().values())


def _feed(selector: selectors.BaseSelector, pipe: IO[bytes], rest: bytes) -> bytes:
    """Write what fits; what is left."""
    try:
        rest = rest[os.write(pipe.fileno(), rest[:_PIECE]) :] if rest else rest
    except BrokenPipeError:
        rest = b""
    if not rest:
        selector.unregister(pipe)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    return rest


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its session, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
