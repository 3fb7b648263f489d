"""A rank that stopped to live, and one that lives and does not come, are named."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sppo.learner import signs as module
from sppo.learner.signs import Folder, Found, Signs
from sppo.learner.where import Where


class Crew:
    """Three ranks that share a folder and a clock."""

    def __init__(self, folder: Path, now: list[float]) -> None:
        self.now, self.wheres = now, [Where() for _ in range(3)]
        self.signs = [
            Signs(Folder(folder), w, rank=r, size=3, deadline_s=45.0)
            for r, w in enumerate(self.wheres)
        ]

    def pass_time(self, seconds: float, *silent: int) -> Found:
        """What rank 0 then knows; all but the silent have looked around every second or so."""
        for _ in range(steps := max(1, round(seconds / module.SIGN_S))):
            self.now[0] += seconds / steps
            self.look(*silent)
        self.look(*silent)
        return self.signs[0].found()

    def look(self, *silent: int) -> None:
        for rank, each in reversed(list(enumerate(self.signs))):
            if rank not in silent:
                each.look()


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return Crew(tmp_path, now)


def test_one_that_gives_no_sign_is_named_with_process_machine_and_what_it_did(crew: Crew) -> None:
    crew.wheres[1].at("training after step 4")
    assert crew.pass_time(0) == {}
    assert crew.pass_time(20, 1) == {}
    found = crew.pass_time(11, 1)
    assert list(found) == [1]
    assert found[1].startswith("rank 1 of the learner (process ")
    assert found[1].endswith(
        " has given no sign of life for 31 s; it was training after step 4"
    )  # whatever it was, patient or not


def test_one_that_lives_and_does_not_come_is_named_with_who_waits(crew: Crew) -> None:
    for where in crew.wheres:
        where.at("training after step 4")
        where.come()
    for rank in (0, 2):
        crew.wheres[rank].come()
    assert crew.pass_time(44) == {}
    found = crew.pass_time(2)
    assert list(found) == [1]
    assert " has stood still for 46 s: it was training after step 4" in found[1]
    assert found[1].endswith(", and rank 0, 2 waits for it")
    # No rank names itself: who waits for it does
    assert crew.signs[1].found() == {}


def test_those_that_may_take_long_and_those_that_all_stand_together_are_not_named(
    crew: Crew,
) -> None:
    crew.wheres[0].come()
    crew.wheres[1].at("at the order 'export'", patient=True)
    crew.wheres[2].at("training after step 4")
    crew.wheres[2].come()
    assert crew.pass_time(120) == {}
    # nor one that gets on, however far behind
    crew.wheres[1].at("training after step 4")
    assert crew.pass_time(40) == {}


def test_a_job_that_was_suspended_begins_its_deadlines_anew(crew: Crew) -> None:
    # Given ranks in the middle of a step, one of them a place behind
    for where in crew.wheres:
        where.at("training after step 4")
    for rank in (0, 2):
        crew.wheres[rank].come()
    assert crew.pass_time(40) == {}
    # When all stand still for an hour, and rank 0 is the first to look around
    crew.now[0] += 3600
    crew.signs[0].look()
    # Then nobody is named, by it or by the others
    assert crew.signs[0].found() == {}
    crew.look()
    assert [each.found() for each in crew.signs] == [{}, {}, {}]
    # but for who does not come after that
    assert crew.pass_time(40) == {}
    assert list(crew.pass_time(8)) == [1]
    # or gives no sign again
    crew.now[0] += 3600
    crew.look(1)
    assert list(crew.pass_time(32, 1)) == [1]


def test_a_look_that_was_under_way_when_a_job_was_suspended_is_taken_again(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, told = crew.signs[0], list[Any]()

    def look() -> None:
        monkeypatch.setattr(own, "look", own.end)
        crew.now[0] += 3600
        raise RuntimeError("timed out")

    monkeypatch.setattr(own, "look", look)
    own._run(told.append, told.append)
    assert told == []


def test_a_store_that_answers_no_more_is_no_suspended_job(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, told, looks = crew.signs[0], list[Any](), list[int]()

    def look() -> None:
        looks.append(1)
        crew.now[0] += 300
        if len(looks) == 5:
            own.end()
        raise RuntimeError("no answer within 300 s")

    monkeypatch.setattr(own, "look", look)
    own._run(told.append, told.append)
    assert (told, len(looks)) == (["no answer within 300 s"], 2)


def test_a_thread_tells_whom_it_lost_or_that_it_is_alone(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    add: Callable[[Any], None] = told.append
    monkeypatch.setattr(Signs, "found", lambda self: {2: "rank 2"})
    crew.signs[0]._run(add, add)
    assert told.pop() == {2: "rank 2"}
    crew.signs[0]._store = Folder(tmp_path / "gone")
    crew.signs[0]._run(add, add)
    assert "gone" in told.pop()
    crew.signs[0].end()
    crew.signs[0]._run(add, add)
    assert told == []


def test_a_folder_keeps_the_newest_value(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    assert not store.check(["sign/1"])
    for value in ("a", "b"):
        store.set("sign/1", value)
    assert store.check(["sign/1"])
    assert store.get("sign/1") == b"b"


def test_a_full_disk_is_no_end_of_a_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SIGN_S", 0.0)
    tries, told, again = 0, list[str](), threading.Event()

    def full(key: str, value: str) -> None:
        nonlocal tries
        tries += 1
        if tries > 2:
            again.set()
            raise FileNotFoundError("gone")
        raise OSError(28, "No space left on device")

    store = Folder(tmp_path)
    monkeypatch.setattr(store, "set", full)
    over = threading.Event()

    def alone(reason: str) -> None:
        told.append(reason)
        over.set()

    Signs(store, Where(), rank=0, size=2, deadline_s=45.0).start(lambda _: None, alone)
    assert again.wait(5)
    assert over.wait(5)
    assert told == ["gone"]
    assert "No space left" in caplog.text
