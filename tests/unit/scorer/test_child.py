"""A process and all that it started."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from sppo.scorer.child import Child


def child(script: str) -> tuple[Child, subprocess.Popen[bytes]]:
    popen = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )
    return Child(popen), popen


def test_how_it_ended_is_told_in_words() -> None:
    for script, words in (
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
    ):
        one, popen = child(script)
        popen.wait()
        assert one.fate() == words
        one.end()


def test_what_it_started_in_a_session_of_its_own_ends_with_it() -> None:
    one, popen = child(
        "import subprocess, sys, time\n"
        "sleeps = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "print(subprocess.Popen(sleeps, start_new_session=True).pid, flush=True)\n"
        "time.sleep(600)"
    )
    assert popen.stdout is not None
    started = psutil.Process(int(popen.stdout.readline()))
    assert one.fate() == ""
    assert one.resident() > 0
    one.end()
    one.end()
    assert one.ended
    assert one.fate() == "was killed by SIGKILL"
    assert (one.resident(), one.cpu_s()) == (0, 0.0)
    deadline = time.monotonic() + 10
    while started.is_running() and started.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
