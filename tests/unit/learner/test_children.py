"""Processes of other ranks: told by standard input, watched, and ended."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sppo.learner import children as module
from sppo.learner.children import Children


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is started in Python's place."""
    path = tmp_path / "rank"
    monkeypatch.setattr(module.sys, "executable", str(path))
    return path


def write(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_one_that_ended_is_named_with_its_code(program: Path, tmp_path: Path) -> None:
    write(program, f"cat > {tmp_path}/given; exit 3")
    children = Children()
    children.start({"rank": 1, "secret": "x"})
    deadline = time.monotonic() + 20
    while not (lost := children.lost()) and time.monotonic() < deadline:
        pass
    children.expect_the_end()
    assert lost == "rank 1 of the learner ended with 3"
    # Settings come by standard input: no command line shows them
    assert json.loads((tmp_path / "given").read_text()) == {"rank": 1, "secret": "x"}


def test_this_process_ends_with_one_that_died_unless_that_was_noticed(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(module, "DEATH_NOTICE_S", 0.0)
    monkeypatch.setattr(module.os, "_exit", ended.append)
    monkeypatch.setattr(module.threading.Thread, "start", lambda self: None)
    monkeypatch.setattr(Children, "ended", lambda self: "rank 1 of the learner ended with 1")
    for noticed in (False, True):
        children = Children()
        if noticed:
            children.noticed()
        children._watch()
        assert ended == [3]
        assert children.expect_the_end()


def test_they_are_given_time_and_then_ended(program: Path) -> None:
    write(program, "exec sleep 60")
    children = Children()
    for rank in (1, 2):
        children.start({"rank": rank})
    assert children.expect_the_end()
    assert not children.expect_the_end()
    began = time.monotonic()
    children.end(0.2)
    assert 0.2 <= time.monotonic() - began < 20
    assert "rank 2 of the learner ended with -9" in children.lost()


def test_one_that_does_not_come_is_ended_and_named_for_that(program: Path) -> None:
    write(program, "exec sleep 60")
    children = Children()
    children.start({"rank": 1})
    children.noticed()
    children.end_hung({1: "rank 1 of the learner has stood still"})
    assert children.lost() == "rank 1 of the learner has stood still"
    assert children._processes[0].wait(20) == -9
    children.expect_the_end()
