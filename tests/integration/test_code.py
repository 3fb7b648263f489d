"""Hostile programs in the real sandbox: each ends within its limit, is paid nothing, and harms
nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sppo.scorer.base import InlineScorer
from sppo.scorer.code import sandbox
from sppo.scorer.code.sandbox import Sandbox
from sppo.scorer.code.scorer import Code
from sppo.types import ScoreRequest, Scores

TIMEOUT_S = 1.0
SLACK_S = 4.0
TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
SECRET = "a-secret-of-the-scorer"
TRIES = """
import builtins, ctypes, gc, json, os, resource, signal, socket, subprocess, sys, tempfile
import threading, time
parent = os.getppid()
"""
"""What each program begins with; PLACE is a folder that the user may write."""

PROGRAMS = {
    "fork bomb": "while True: os.fork()",
    "thread bomb": "while True: threading.Thread(target=time.sleep, args=(1e6,)).start()",
    "daemon": "if os.fork() == 0:\n os.setsid()\n os.fork()\n while True: pass",
    "another program": "subprocess.run(['sleep', '1000'])",
    "exec": "os.execv('/bin/sh', ['sh', '-c', 'sleep 1000'])",
    "endless output": "while True: print('x' * 100_000)",
    "10 GB of memory": "x = bytearray(10 << 30)",
    "memory bit by bit": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "10 GB on the disk": "f = tempfile.TemporaryFile()\nwhile True: f.write(b'x' * (1 << 20))",
    "10 GB in memory files": "f = os.memfd_create('x')\nwhile True: os.write(f, b'x' * (1 << 20))",
    "a file elsewhere": "open('PLACE/made', 'w').write('x')",
    "a symlink": "os.symlink('/etc', 'PLACE/made')",
    "a file that is there": "open('PLACE/kept', 'a').write('x')",
    "deleting": "os.unlink('PLACE/kept')",
    "truncating": "os.truncate('PLACE/kept', 0)",
    "rights": "os.chmod('PLACE/kept', 0o777)",
    "reading": "open('PLACE/kept').read()",
    "listing": "os.listdir('PLACE')",
    "a socket": "socket.socket().connect(('127.0.0.1', PORT))",
    "a socket in a file": "socket.socket(socket.AF_UNIX).connect('PLACE/socket')",
    "killing its parent": "os.kill(parent, 9)",
    "killing its group": "os.kill(0, 9)",
    "killing all": "os.kill(-1, 9)",
    "tracing its parent": "assert ctypes.CDLL(None).ptrace(16, parent, 0, 0) == 0",
    "limits of its parent": "resource.prlimit(parent, resource.RLIMIT_CPU, (0, 0))",
    "secrets of its parent": "open(f'/proc/{parent}/environ').read()",
    "outliving": "ctypes.CDLL(None).prctl(1, 0)\ntime.sleep(1e6)",
    "sleeping": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\ntime.sleep(1e6)",
    "looping": "while True: pass",
    "one long step": "10 ** 10 ** 10",
    "recursion": "def add(a, b): return add(a, b)",
    "deep recursion": "sys.setrecursionlimit(10 ** 9)\ndef f(): return f()\nf()",
    "crash": "ctypes.string_at(0)",
    "waiting for input": "while True: sys.stdin.read()",
    "leaving": "sys.exit(0)",
    "leaving at once": "os.write(1, b'1\\n1\\n')\nos._exit(0)",
    "the verdict's own words": "print('1\\n1\\n', flush=True)\nos.write(1, b'1\\n1\\n')",
    "equal to everything": "class A(int):\n __eq__ = lambda s, o: True\n __hash__ = None\n"
    "def add(a, b): return A()",
    "no failing asserts": "builtins.AssertionError = None\ndef add(a, b): return 7",
    "other built-ins": "builtins.compile = builtins.exec = print\ndef add(a, b): return 7",
    "closed descriptors": "os.closerange(0, 100)\ndef add(a, b): return 3",
    "forged answers": "m = json.dumps({'value': True}).encode()\nfor f in range(3, 64):\n try: os."
    "write(f, len(m).to_bytes(4, 'big') + m)\n except OSError: pass",
    "looking for the tests": "found = [o for o in gc.get_objects() if 'assert add' in str(o)]\n"
    "def add(a, b): return 3 if found else None",
    "an answer without end": "def add(a, b):\n while True: yield 1",
    "an answer too long": "def add(a, b): return 'x' * (100 << 20)",
    "raising": "def add(a, b): raise KeyboardInterrupt",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that must stay as it is, with a secret beside it."""
    before = children()
    monkeypatch.setenv("SPPO_SECRET", SECRET)
    (tmp_path / "kept").write_text(SECRET)
    (tmp_path / "kept").chmod(0o600)
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == SECRET
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600
    assert children() <= before


def children() -> set[psutil.Process]:
    """Processes of this one; brokers of other tests are among them."""
    return set(psutil.Process().children(recursive=True))


def test_hostile_programs_end_in_time_and_are_paid_nothing(place: Path) -> None:
    scorer = Code(timeout_s=TIMEOUT_S, memory_mib=256)
    scorer.setup()
    before = children()
    for name, body in PROGRAMS.items():
        program = (TRIES + body).replace("PLACE", str(place)).replace("PORT", "80")
        begun = time.monotonic()
        request = ScoreRequest(uid="1", question="", completions=[program], data={"tests": TESTS})
        assert scorer.score(request)["rewards"] == [0], name
        assert time.monotonic() - begun < TIMEOUT_S + SLACK_S, name
        assert children() <= before, name


def test_what_is_tried_is_refused_and_the_program_goes_on(place: Path) -> None:
    """Not paid because it failed otherwise: each attempt alone is what is refused."""
    sandbox = Sandbox(timeout_s=20, memory=256 << 20)
    tried = [
        f"open({str(place / 'kept')!r})", f"open({str(place / 'made')!r}, 'w')", "os.fork()",
        "socket.socket()", "os.kill(parent, 0)", "open('/proc/self/environ')", "os.listdir('/')",
        "open('/etc/passwd')", "os.memfd_create('x')", "os.setsid()", "os.listdir('/proc')",
    ]  # fmt: skip
    lines = [f"try:\n {each}\n print({each!r})\nexcept OSError: pass" for each in tried]
    code = TRIES + "\n".join(lines) + "\nprint(dict(os.environ), threading.active_count())"
    outcome = sandbox.program(code, "")
    assert outcome.code == 0
    reached, threads = outcome.output.decode().splitlines()[:-1], outcome.output.split()[-1]
    assert reached == []
    assert threads == b"1"
    assert SECRET.encode() not in outcome.output


def test_threads_modules_and_data_of_right_programs_work() -> None:
    code = (
        "import sys, threading, collections, heapq, re, decimal, functools, dataclasses, typing\n"
        "sys.setrecursionlimit(10 ** 6)\nthreading.stack_size(64 << 20)\n"
        "def deep(n): return n and 1 + deep(n - 1)\n"
        "t = threading.Thread(target=lambda: print(deep(5000), input()))\nt.start()\nt.join()\n"
    )
    outcome = Sandbox(timeout_s=20, memory=1 << 30).program(code, "x\n")
    assert (outcome.output, outcome.code) == (b"5000 x\n", 0)


def test_a_program_ends_with_the_process_that_runs_it() -> None:
    pid = os.fork()
    if pid == 0:
        Sandbox(timeout_s=60, memory=256 << 20).program("while True: pass", "")
        os._exit(0)
    scorer = psutil.Process(pid)
    until = time.monotonic() + 20
    while not (children := scorer.children()) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert len(gone) == 1
    assert not alive


def test_what_holds_programs_is_tried_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Sandbox(timeout_s=20, memory=256 << 20).reach() == []
    monkeypatch.setattr(sandbox, "protections", dict)
    assert Sandbox(timeout_s=20, memory=256 << 20).reach() == ["files", "sockets", "processes"]
    with pytest.raises(RuntimeError, match="would reach files and sockets and processes here"):
        Code().setup()


def test_in_a_process_of_its_own_as_a_run_has_it() -> None:
    right, wrong = "def add(a, b):\n    return a + b\n", TRIES + PROGRAMS["killing its parent"]
    request = ScoreRequest(
        uid="1", question="", completions=[right, wrong, right], data={"tests": TESTS}
    )

    async def scored() -> Scores:
        scorer = InlineScorer("code", options={"timeout_s": 20.0, "memory_mib": 256})
        try:
            return await scorer.score(request)
        finally:
            await scorer.close()

    scores = asyncio.run(scored())
    assert scores.rewards is not None
    assert scores.rewards.tolist() == [1, 0, 1]
    assert scores.details is not None
    assert scores.details[0] == {"passed": 2, "of": 2}
