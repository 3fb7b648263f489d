"""Programs run and ended; hostile ones are in tests/integration/test_code.py."""

from __future__ import annotations

import os
import time

import pytest

from sppo.scorer.code import sandbox
from sppo.scorer.code.sandbox import Sandbox

SANDBOX = Sandbox(timeout_s=20, memory=256 << 20)


def test_a_program_has_its_input_and_output() -> None:
    big = "x" * 200_000 + "\n"
    outcome = SANDBOX.program("print(input()[:3], end='')\nexit(3)", big)
    assert (outcome.output, outcome.code, outcome.why) == (b"xxx", 3, "")


def test_one_that_is_late_is_ended() -> None:
    outcome = Sandbox(timeout_s=0.3, memory=256 << 20).program("while True: pass", "")
    assert (outcome.code, outcome.why) == (None, "late")


def test_time_in_the_queue_of_a_busy_machine_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = time.monotonic() - 25.0
    monkeypatch.setattr(sandbox, "_queued_s", lambda pid: 0.0)
    assert SANDBOX._left(begun, [1]) < -4
    monkeypatch.setattr(sandbox, "_queued_s", lambda pid: 6.0)
    assert 0 < SANDBOX._left(begun, [1]) < 1.1
    monkeypatch.setattr(sandbox, "_queued_s", lambda pid: 1e6)
    assert SANDBOX._left(time.monotonic() - 101.0, [1, 2]) < 0
    monkeypatch.undo()
    assert sandbox._queued_s(os.getpid()) >= 0


def test_tests_call_a_program_in_another_process() -> None:
    tests = {
        "prelude": "", "tests": ["assert f(2) == 4", "assert f(2) == 5"], "entry": "",
        "calls": [{"name": "f", "arguments": [3], "expected": 9}],
    }  # fmt: skip
    assert SANDBOX.tests("def f(x): return x * x", tests).output == b"1\n0\n1\n"


def test_where_no_program_runs_it_is_said() -> None:
    with pytest.raises(RuntimeError, match="cannot be run within 20 s and 1 MiB"):
        Sandbox(timeout_s=20, memory=1 << 20).reach()
