"""Requests to stop, in processes of their own: signals belong to a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

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
    child = subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGHUP); print('lives')"])
    os.kill(os.getpid(), signal.SIGHUP)
assert child.wait() == 0
print(*seen)
"""


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
