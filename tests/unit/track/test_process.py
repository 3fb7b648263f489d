from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from sppo import locks
from sppo.track import follower, process, tracker
from sppo.track.process import Work
from tests.unit.track.conftest import Memory, Written


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Stands for the tracker of any name."""
    made = Memory()
    monkeypatch.setattr(tracker, "make", lambda name, about: made)
    return made


def work(run_dir: Path, said: list[str], *, over: bool = True) -> Work:
    ended = threading.Event()
    if over:
        ended.set()
    return Work("memory", run_dir, said.append, ended)


def test_of_a_run_that_is_over_everything_is_passed_on(written: Written, memory: Memory) -> None:
    written.step(1)
    said: list[str] = []
    assert work(written.run_dir, said).run()
    written.step(2)
    assert work(written.run_dir, said).run()
    assert [step for step, _ in memory.told] == [1, 2]
    assert said == []


def test_a_tracker_that_fails_is_told_once_and_tried_again_to_the_end(
    written: Written, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "RETRY_S", 0.001)
    monkeypatch.setattr(process, "POLL_S", 0.001)
    written.step(1)
    memory.fails = OSError("no\nnetwork")
    said: list[str] = []
    begun = work(written.run_dir, said, over=False)
    thread = threading.Thread(target=begun.run)
    thread.start()
    while not said:
        thread.join(0.001)
    memory.fails = None
    while not memory.told:
        thread.join(0.001)
    begun._ended.set()
    thread.join()
    assert said == ["OSError: no network"]
    assert [step for step, _ in memory.told] == [1]
    # and what fails at the end is left
    written.step(2)
    memory.fails = OSError("no network")
    assert not work(written.run_dir, said).run()


def test_two_do_not_write_the_same(written: Written, memory: Memory) -> None:
    folder = written.run_dir / follower.FOLDER
    folder.mkdir()
    said: list[str] = []
    with locks.held(folder / "memory.lock", AssertionError()):
        assert not work(written.run_dir, said).run()
    assert "another process writes" in said[0]


def test_a_failure_leaves_no_writer_behind_and_its_traceback_in_the_log(
    written: Written, memory: Memory, capsys: pytest.CaptureFixture[str]
) -> None:
    written.step(1)
    memory.fails = OSError("no network")
    said: list[str] = []
    log = io.StringIO()
    ended = threading.Event()
    ended.set()
    assert not Work("memory", written.run_dir, said.append, ended, log=log).run()
    assert memory.closed == 1
    assert said == ["OSError: no network"]
    assert "Traceback" in log.getvalue()
    assert capsys.readouterr().err == ""
