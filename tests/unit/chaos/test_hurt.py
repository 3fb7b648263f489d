"""Faults on a run that only pretends: what is done to whom, and what is made of what follows."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from sppo.chaos import hurt as module
from sppo.chaos.hurt import Hurt
from sppo.chaos.plan import Fault, Outcome


class Process:
    def __init__(self) -> None:
        self.done: list[str] = []

    def kill(self) -> None:
        self.done.append("kill")

    def suspend(self) -> None:
        self.done.append("suspend")

    def resume(self) -> None:
        self.done.append("resume")
        raise psutil.NoSuchProcess(1)

    def is_running(self) -> bool:
        return True


class Proxy:
    def __init__(self) -> None:
        self.modes: list[str] = []

    @property
    def mode(self) -> str:
        return self.modes[-1]

    @mode.setter
    def mode(self, value: str) -> None:
        self.modes.append(value)

    def cut(self) -> None:
        self.modes.append("cut")


class Watch:
    """The role has these lives, one after another, and gets on with its work if `moves`."""

    def __init__(self, *lives: str, moves: bool = True) -> None:
        self.lives, self.moves, self.work = list(lives), moves, 0.0
        self.found: Process | None = Process()
        self.over = False

    def training(self) -> bool:
        return True

    def leaving(self, steps: int) -> bool:
        return self.over

    def life(self, role: str) -> str:
        return self.lives.pop(0) if len(self.lives) > 1 else self.lives[0]

    def process(self, role: str) -> Process | None:
        return self.found

    def progress(self, role: str) -> float:
        self.work += self.moves
        return self.work

    def works_anew(self, role: str, before: str, since: float) -> bool:
        return self.life(role) not in ("", before)

    def engine_start_s(self, role: str) -> float:
        return 0.0


class Up:
    code: int | None = None

    def poll(self) -> int | None:
        return self.code


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECOVERY_WAIT_S", 0.5)
    monkeypatch.setattr(module, "FIND_S", 0.1)


def inflict(watch: Watch, up: Up | None = None, **fault: Any) -> tuple[list[Outcome], Proxy]:
    proxy = Proxy()
    planned = Fault(**{"at_s": 0, "role": "scorer-0"} | fault)
    parts: Any = (watch, {"scorer-0": proxy}, up or Up())
    return list(Hurt(*parts).all([planned], 10, lambda _: None)), proxy


def test_a_kill_is_over_when_another_life_works() -> None:
    watch = Watch("a", "", "b")
    ((outcome,), _) = inflict(watch, kind="kill")
    assert outcome.restarted
    assert outcome.recovery_s is not None
    assert outcome.began > 0
    assert watch.found is not None
    assert watch.found.done == ["kill"]


def test_one_that_never_works_again_is_said_to_and_so_is_the_end_of_the_run() -> None:
    ((outcome,), _) = inflict(Watch("a"), kind="kill")
    assert (outcome.restarted, outcome.recovery_s, outcome.run_ended) == (True, None, False)
    gone = Watch("")
    gone.found = None
    ((outcome,), _) = inflict(gone, kind="kill")
    assert (outcome.restarted, outcome.recovery_s) == (False, None)


def test_a_stop_is_lifted_and_the_role_goes_on_or_was_taken_for_hung() -> None:
    watch = Watch("a")
    ((outcome,), _) = inflict(watch, kind="stop", seconds=0.01)
    assert watch.found is not None
    assert watch.found.done == ["suspend", "resume"]
    assert (outcome.restarted, outcome.recovery_s is not None) == (False, True)
    ((outcome,), _) = inflict(Watch("a", "b", moves=False), kind="stop", seconds=0.01)
    assert (outcome.restarted, outcome.recovery_s is not None) == (True, True)


def test_a_partition_silences_then_closes_and_a_delay_only_slows() -> None:
    _, proxy = inflict(Watch("a"), kind="partition", seconds=0.01)
    assert proxy.modes == ["silence", "pass", "cut"]
    _, proxy = inflict(Watch("a"), kind="delay", seconds=0.01)
    assert proxy.modes == ["delay", "pass"]


def test_a_run_at_its_end_is_not_hurt() -> None:
    watch = Watch("a")
    watch.over = True
    assert inflict(watch, kind="kill")[0] == []
    ended = Up()
    ended.code = 0
    assert inflict(Watch("a"), ended, kind="kill")[0] == []
