"""One process at a time, and free again however the holder ended."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sppo import locks
from sppo.errors import ConfigError


def test_a_second_taker_is_told_and_the_first_one_lets_go(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    refusal = ConfigError("it is taken")
    with (
        locks.held(file, refusal),
        pytest.raises(ConfigError, match="it is taken"),
        locks.held(file, refusal),
    ):
        pass
    with locks.held(file, refusal):
        assert file.stat().st_mode & 0o777 == 0o600


def test_who_waits_gets_it_when_it_is_free(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    first = locks.take(file)
    threading.Timer(0.3, os.close, [first]).start()
    began = time.monotonic()
    os.close(locks.take(file, wait_s=10))
    assert 0.2 < time.monotonic() - began < 5


def test_some_may_hold_it_together(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    first, second = (locks.take(file, shared=True) for _ in range(2))
    with pytest.raises(locks.Held):
        locks.take(file)
    inherited = os.dup(first)  # as a child has it
    locks.release(first)
    locks.release(second)
    os.close(locks.take(file))
    os.close(inherited)


def test_it_is_held_by_whoever_inherits_it_until_that_is_killed(tmp_path: Path) -> None:
    # Given a child that has inherited the lock of a process that let go of it
    file = tmp_path / "a.lock"
    lock = locks.take(file)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, pass_fds=[lock])
    os.close(lock)
    # When it lives, the lock is taken; when it is killed, it is free
    with pytest.raises(locks.Held):
        locks.take(file)
    child.kill()
    child.wait()
    os.close(locks.take(file))


def test_what_is_let_go_of_is_free_until_it_is_taken_again(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    lock = locks.take(file, shared=True)
    locks.let_go(lock)
    other = locks.take(file)
    with pytest.raises(locks.Held):
        locks.take_again(lock, shared=True)
    locks.release(other)
    locks.take_again(lock)
    with pytest.raises(locks.Held):
        locks.take(file, shared=True)
    os.close(lock)


def test_a_process_that_is_spawned_inside_has_it_too(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    lock = locks.take(file)
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    with locks.inherited(lock):
        child.start()
    os.close(lock)
    with pytest.raises(locks.Held):
        locks.take(file)
    child.kill()
    child.join()
    os.close(locks.take(file))


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = locks.own_folder("roles")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert locks.own_folder("roles") == folder
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match=f"{folder} belongs to someone else or is open"):
        locks.own_folder("roles")
    folder.rmdir()
    for put in (lambda: folder.symlink_to(tmp_path), folder.touch):
        put()
        with pytest.raises(ConfigError, match="belongs to someone else"):
            locks.own_folder("roles")
        folder.unlink()


def test_a_file_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locks.held(tmp_path / "none" / "a.lock", ConfigError()):
        pass
