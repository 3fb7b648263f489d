"""Turns by locks: who has the GPU, and who gets it when somebody dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sppo.turns import Turns


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def never() -> None:
    raise AssertionError("nobody has it")


def test_engines_have_it_together_and_the_learner_alone() -> None:
    one, other, learner = (Turns("run") for _ in range(3))
    assert one.enter()
    assert other.enter()
    asked: list[bool] = []

    def waiting() -> None:
        asked.append(one.wanted)
        one.leave()
        assert not one.enter()  # the learner has asked for it: nobody comes before it
        if len(asked) == 2:
            other.leave()

    with learner.alone(waiting):
        assert asked == [True, True]
        assert not one.enter()
        assert Turns("another run").enter()
    assert not one.wanted
    assert one.enter()
    one.leave()
    one.leave()  # safe to repeat


def test_a_learner_that_waits_no_more_leaves_the_engines_as_they_are() -> None:
    engine = Turns("run")
    assert engine.enter()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Turns("run").alone(stop):
        never()
    assert not engine.wanted
    engine.leave()


LEARNER = """from sppo.turns import Turns
with Turns("run").alone(print):
    print("has it", flush=True)
    input()
"""
ENGINE = "from sppo.turns import Turns\nt = Turns('run'); print(t.enter(), flush=True); input()"


@pytest.mark.parametrize("code", [LEARNER, ENGINE])
def test_who_is_killed_keeps_nobody_waiting(code: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() in ("has it", "True")
    if code is LEARNER:
        assert not Turns("run").enter()
    threading.Timer(0.05, process.send_signal, [signal.SIGKILL]).start()
    asked: list[int] = []
    if code is ENGINE:
        with Turns("run").alone(lambda: asked.append(1)):
            assert asked
    else:
        engine, deadline = Turns("run"), time.monotonic() + 5
        while not engine.enter():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        engine.leave()
    process.communicate()
