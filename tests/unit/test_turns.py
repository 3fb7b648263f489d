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


ENGINE_APART = """import multiprocessing, time
from sppo.turns import Turns
if __name__ == "__main__":
    turns = Turns("run")
    assert turns.enter()
    engine = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    with turns.kept_by_engine():
        engine.start()
    turns.leave()  # it has slept since
    assert turns.enter()
    print(engine.pid, flush=True)
    input()
"""


def test_the_memory_of_an_engine_that_outlives_its_generator_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "generator.py").write_text(ENGINE_APART)
    generator = subprocess.Popen(
        [sys.executable, str(tmp_path / "generator.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert generator.stdout is not None
    engine = int(generator.stdout.readline())
    generator.kill()
    generator.wait()
    waited: list[bool] = []

    def ended_then() -> None:
        waited.append(True)
        if len(waited) == 3:
            os.kill(engine, signal.SIGKILL)

    with Turns("run").alone(ended_then):
        assert len(waited) >= 3
    generator.communicate()


def test_who_has_it_is_told_apart_from_who_wants_it() -> None:
    looks, engine = Turns("run"), Turns("run")
    assert not looks.of_learner
    assert engine.enter()
    seen: list[bool] = []

    def waiting() -> None:
        seen.append(looks.of_learner)
        engine.leave()

    with looks.alone(waiting):
        assert seen == [False]
        assert engine.of_learner
    assert not looks.of_learner


def test_its_files_are_never_old_to_who_tidies_up_a_temporary_folder(tmp_path: Path) -> None:
    with Turns("run").alone(never):
        pass
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 2
    for file in files:
        os.utime(file, (0, 0))
    with Turns("run").alone(never):
        assert all(file.stat().st_mtime > time.time() - 60 for file in files)
