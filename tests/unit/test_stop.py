"""Requests to stop, in processes of their own: signals belong to a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sppo import stop

SCRIPT = """
import os, signal, sys
from sppo import stop
seen = []
undo = stop.catch(seen.append)
signal.signal(signal.SIGTERM, lambda *_: seen.append("a library's"))
stop.catch(seen.append)
for number in stop.SIGNALS:
    os.kill(os.getpid(), number)
print(*seen)
undo()
print(*(signal.getsignal(s) == signal.SIG_IGN for s in stop.SIGNALS))
"""

CHILDREN = """
import os, signal, subprocess, sys
from sppo import stop
seen = []
stop.catch(seen.append)
with stop.kept_from_children():
    hangs_up = "import os, signal; os.kill(os.getpid(), signal.SIGHUP); print('lives')"
    child = subprocess.Popen([sys.executable, "-c", hangs_up])
    os.kill(os.getpid(), signal.SIGHUP)
assert child.wait() == 0
print(*seen)
"""


@pytest.fixture(autouse=True)
def nothing_is_ignored() -> Iterator[None]:
    """Also where these tests run behind `nohup`, or in the background of a script."""
    ignored = [s for s in stop.SIGNALS if signal.getsignal(s) == signal.SIG_IGN]
    for each in ignored:
        signal.signal(each, signal.SIG_DFL)
    yield
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)


def run(script: str, before: Callable[[], object] | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        preexec_fn=before,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_each_request_is_caught_also_over_a_librarys_handler() -> None:
    assert run(SCRIPT)[0] == "SIGINT SIGTERM SIGHUP"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(number: signal.Signals) -> None:
    seen, ignored = run(SCRIPT, lambda: signal.signal(number, signal.SIG_IGN))
    others = [s for s in ("SIGINT", "SIGTERM", "SIGHUP") if s != number.name]
    assert seen.split() == others
    assert ignored.split() == [
        str(s == number) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ]


def test_a_closed_terminal_reaches_the_parent_and_not_the_children() -> None:
    assert run(CHILDREN) == ["lives", "SIGHUP"]


def test_inside_each_request_interrupts_and_afterwards_what_was_there_is_back() -> None:
    script = """
import os, signal
from sppo import stop
before = [signal.getsignal(s) for s in stop.SIGNALS]
for number in stop.SIGNALS:
    try:
        with stop.interrupting():
            os.kill(os.getpid(), number)
    except KeyboardInterrupt:
        print(number.name)
assert before == [signal.getsignal(s) for s in stop.SIGNALS]
"""
    assert run(script) == ["SIGINT", "SIGTERM", "SIGHUP"]


def test_a_process_that_was_told_so_ends_with_its_parent() -> None:
    script = """
import subprocess, sys
from sppo import stop
child = "import time; print('there', flush=True); time.sleep(60)"
process = subprocess.Popen(
    [sys.executable, "-c", child], stdout=-1, preexec_fn=stop.end_with_parent
)
process.stdout.readline()
print(process.pid, flush=True)
"""
    (pid,) = run(script)
    assert ended(int(pid))


def test_a_process_of_multiprocessing_and_its_own_end_with_who_began_it() -> None:
    script = """
import multiprocessing, os, signal, time
from sppo import stop
stop.end_with_founder()  # nothing here
context = multiprocessing.get_context("fork")
def wait(told):
    told.put(os.getpid())
    time.sleep(60)
def child(told):
    stop.end_with_founder()
    context.Process(target=wait, args=(told,)).start()
    wait(told)
told = context.SimpleQueue()
context.Process(target=child, args=(told,)).start()
print(told.get(), told.get(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert all(ended(int(pid)) for pid in done.stdout.split())
    assert len(done.stdout.split()) == 2


def ended(pid: int) -> bool:
    """Whether a process is gone within five seconds."""
    gone, _ = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
    return not psutil.pid_exists(pid) or bool(gone)


def test_what_a_role_started_leaves_ctrl_c_and_a_closed_terminal_to_it() -> None:
    # Given a child of a process that carries a role's mark
    script = """
import multiprocessing, os, signal
from sppo import marks, stop
def child():
    marks.ignore_interrupts()
    print(*(s.name for s in stop.SIGNALS if signal.getsignal(s) == signal.SIG_IGN), flush=True)
os.environ[marks.VARIABLE] = "a role"
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
"""
    assert run(script) == ["SIGINT SIGHUP"]


def test_nobody_else_installs_a_handler() -> None:
    own = Path(stop.__file__)
    code = [p for folder in ("sppo", "cli") for p in (own.parents[1] / folder).rglob("*.py")]
    calls = re.compile(r"signal\.signal\(|add_signal_handler|pthread_sigmask|PR_SET_PDEATHSIG,")
    found = [str(p) for p in code if p != own and calls.search(p.read_text(encoding="utf-8"))]
    # The process of a user's scorer function imports the standard library alone.
    assert [p for p in found if not p.endswith("sppo/scorer/worker.py")] == []
