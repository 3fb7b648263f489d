"""When a role that lives is taken for hung."""

from __future__ import annotations

from sppo.launch.watchdog import SILENT_S, Watchdog
from sppo.types import Member
from tests.unit.launch.test_restarts import Clock


def member(progress: int = 0, life: str = "a", name: str = "generator-0", host: str = "") -> Member:
    return Member(name=name, role="generator", life=life, progress=progress, host=host)


def test_a_role_that_stands_still_or_falls_silent_has_hung() -> None:
    clock = Clock()
    dog = Watchdog(60, 300, clock)
    names = dict.fromkeys(["generator-0", "generator-1", "scorer-0"], 0.0)
    assert (
        dog.hung(names, [member(), member(name="generator-1")]) == {}
    )  # scorer-0 is still starting
    clock.now = SILENT_S + 0.1
    assert dog.hung(names, [member(1)]) == {"generator-1": "no heartbeat"}
    clock.now = 59
    assert dog.hung({"generator-0": 0.0}, [member(1)]) == {}
    clock.now = 64
    assert dog.hung({"generator-0": 0.0}, [member(1)]) == {"generator-0": "no progress for 60 s"}
    assert dog.hung({"generator-0": 0.0}, [member(2)]) == {}


def test_what_has_hung_is_named_with_its_machine() -> None:
    clock = Clock()
    dog = Watchdog(60, 300, clock)
    dog.hung({"generator-0": 0.0}, [member(host="west")])
    clock.now = SILENT_S + 0.1
    assert dog.hung({"generator-0": 0.0}, []) == {"generator-0": "no heartbeat from west"}
    clock.now = 61
    still = dog.hung({"generator-0": 0.0}, [member(host="west")])
    assert still == {"generator-0": "no progress from west for 60 s"}


def test_what_the_registry_says_of_an_ended_life_is_no_news() -> None:
    clock = Clock()
    dog = Watchdog(60, 300, clock)
    dog.hung({"generator-0": 0.0}, [member()])
    dog.forget("generator-0")  # killed; a new process is starting
    clock.now = 1
    assert dog.hung({"generator-0": 0.0}, [member()]) == {}  # its registration has not lapsed yet
    clock.now = 30
    assert dog.hung({"generator-0": 0.0}, []) == {}
    assert dog.hung({"generator-0": 0.0}, [member(life="b")]) == {}
    clock.now = 30 + SILENT_S + 1
    assert dog.hung({"generator-0": 0.0}, []) == {"generator-0": "no heartbeat"}


def test_nobody_is_blamed_for_the_brokers_absence() -> None:
    clock = Clock()
    dog = Watchdog(60, 300, clock)
    dog.hung({"generator-0": 0.0}, [member()])
    clock.now = 100
    dog.excuse()
    assert dog.hung({"generator-0": 0.0}, []) == {}


def test_a_role_that_never_gives_a_sign_of_life_has_hung_at_its_start() -> None:
    clock = Clock()
    dog = Watchdog(60, 300, clock)
    clock.now = 299
    assert dog.hung({"learner-0": 0.0, "scorer-0": 200.0}, []) == {}
    clock.now = 301
    assert list(dog.hung({"learner-0": 0.0, "scorer-0": 200.0}, [])) == ["learner-0"]


def test_who_waits_for_the_learners_gpu_is_given_its_time_afterwards() -> None:
    clock = Clock()
    dog = Watchdog(60, 300, clock)
    dog.hung({}, [member()])
    clock.now = 400
    dog.excuse_starts()
    found = dog.hung({"generator-0": 0.0, "generator-1": 0.0}, [])
    assert found == {"generator-0": "no heartbeat"}  # which had come
    clock.now = 701
    assert "generator-1" in dog.hung({"generator-1": 0.0}, [])


def test_how_long_a_role_stands_still_is_counted_from_a_moment_on() -> None:
    clock = Clock()
    dog = Watchdog(60, 300, clock)
    clock.now = 10
    dog.hung({}, [member(1)])
    clock.now = 40
    assert dog.still_s("generator-0", 5) == 30
    assert dog.still_s("generator-0", 25) == 15
    assert dog.still_s("learner-0", 25) == 15
