"""A rank that lives and does not come to a collective is named within its deadline."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from sppo.errors import RoleDiedError

WITHIN_S = 60.0
"""The deadline and the time to end are 4 s; a busy machine adds to that."""


def start(stack: ExitStack, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.hanging", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    stack.callback(process.kill)
    return process


def ready(process: subprocess.Popen[str]) -> int:
    """Once it trains: the number of the process."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def said(process: subprocess.Popen[str]) -> str:
    """What it says when it ends, soon, for a rank that is lost."""
    _, errors = process.communicate(timeout=WITHIN_S)
    assert process.returncode == RoleDiedError.exit_code, errors
    return errors


@pytest.mark.timeout(120)
def test_a_stopped_rank_is_named_and_ended_by_the_one_that_started_it() -> None:
    with ExitStack() as stack:
        # Given rank 0, and rank 1, which it has started; both print where they are
        first = start(stack, "lead")
        own = {ready(first), ready(first)}
        (stopped,) = own - {first.pid}
        # When rank 1 is stopped: its connections stay
        os.kill(stopped, signal.SIGSTOP)
        errors = said(first)
        # Then it is named with process, machine and what it did, and is gone
        assert re.search(
            rf"rank 1 of the learner \(process {stopped} on {re.escape(socket.gethostname())}\) "
            r"has given no sign of life for \d+ s; it was training after step 7",
            errors,
        ), errors
        while os.path.exists(f"/proc/{stopped}"):
            time.sleep(0.05)


@pytest.mark.timeout(120)
def test_one_that_lives_and_never_comes_is_named_by_the_one_that_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with ExitStack() as stack:
        # Given two ranks started by hand, of which rank 1 gives signs of life and does not come
        first, second = start(stack, "0", port), start(stack, "1", port, "hangs")
        assert ready(second) == second.pid
        # Then rank 0 says so, and so does whoever starts them all again
        assert re.search(
            rf"rank 1 of the learner \(process {second.pid} on .*\) has stood still for \d+ s: it "
            r"was training after step 7, and rank 0 waits for it",
            said(first),
        )
        assert "rank 0 of the learner is gone" in said(second)
