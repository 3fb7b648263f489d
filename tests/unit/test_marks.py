"""Shared memory goes with the role that made it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from sppo import marks


def leave_something(mark: str) -> None:
    os.environ[marks.VARIABLE] = mark
    marks.name_shared_memory()
    from multiprocessing import resource_tracker, shared_memory

    made = shared_memory.SharedMemory(create=True, size=100)
    resource_tracker.unregister(made._name, "shared_memory")  # type: ignore[attr-defined]
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory is not in files here")
def test_what_a_killed_process_leaves_is_found_by_its_mark_and_removed(tmp_path: Path) -> None:
    mark, other = marks.mark(tmp_path, "generator-0"), marks.mark(tmp_path, "generator-1")
    for found in (mark, other):
        # A fork, so that no resource tracker of its own cleans up after it
        process = multiprocessing.get_context("fork").Process(target=leave_something, args=(found,))
        process.start()
        process.join()
    assert marks.left_shared_memory(mark)
    assert marks.remove_shared_memory(mark)
    assert marks.left_shared_memory(mark) == []
    assert marks.left_shared_memory(other)
    marks.remove_shared_memory(other)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory is not in files here")
def test_shared_memory_that_others_have_named_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path("/dev/shm") / f"torch_{os.getpid()}_test"
    there.touch()
    marks.goes_too(there.name)  # without a mark nobody removes it
    mark = marks.mark(tmp_path, "learner")
    assert marks.remove_shared_memory(mark) == []
    assert there.exists()
    monkeypatch.setenv(marks.VARIABLE, mark)
    marks.goes_too(there.name)
    assert len(marks.remove_shared_memory(mark)) == 1
    assert not there.exists()
