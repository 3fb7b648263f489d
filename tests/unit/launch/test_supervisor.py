"""The supervisor does what the verdicts say: a run on a cluster that only pretends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sppo import config
from sppo.errors import ConfigError, RoleDiedError, SppoError
from sppo.launch import restarts
from sppo.launch.restarts import Restarts
from sppo.launch.room import Machine
from sppo.launch.roster import Roster
from sppo.launch.supervisor import Supervisor
from sppo.launch.watchdog import Watchdog
from sppo.turns import Turns
from sppo.types import Member


class Places:
    """One machine, with room for all."""

    def machines(self) -> list[Machine]:
        return [Machine(name="here", cpus=4)]

    def seat(self, *_: object) -> None: ...

    def wait(self, *_: object) -> None: ...


class Cluster:
    """Roles end as the test says, in order."""

    places = Places()

    def __init__(self) -> None:
        self.ends: list[tuple[str, dict[str, Any] | SppoError | None]] = []
        """Name, and what it returns or raises; ("", None) for a second in which nobody ends."""
        self.started: list[str] = []
        self.swept: list[str] = []
        self.roles: dict[str, object] = {}
        self.room = True

    def start(self, role: str, name: str, *_: object) -> None:
        if not self.room:
            raise ConfigError(f"no machine of the cluster has room for {name}")
        self.started.append(name)

    def wait(self, timeout_s: float) -> str | None:
        assert self.ends, "the run goes on for longer than the test says"
        if not self.ends[0][0]:
            self.ends.pop(0)
            return None
        return self.ends[0][0]

    def result(self, name: str) -> dict[str, Any]:
        _, end = self.ends.pop(0)
        if isinstance(end, SppoError):
            raise end
        return end or {}

    def sweep(self, name: str) -> None:
        self.swept.append(name)


class Keeper:
    def there(self) -> bool:
        return True

    def ask(self, work: Callable[[], object]) -> bool:
        work()
        return True

    def credentials(self, settings: Any, role: str) -> Any:
        return settings


class Broker:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.left: list[str] = []
        self.present = ["learner-0", "generator-0", "scorer-0"]
        self.progress = 0

    def request_stop(self, audience: str, reason: str) -> None:
        if reason:
            self.told.append(f"{audience}: {reason}")

    def leave(self, name: str) -> None:
        self.left.append(name)

    def members(self) -> list[Member]:
        return [
            Member(name=n, role=n.split("-")[0], life="a", progress=self.progress)
            for n in self.present
        ]


class Reporter:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def tell(self, kind: str, text: str, **_: object) -> None:
        self.lines.append(text)

    def news(self) -> list[dict[str, Any]]:
        return []

    def saw(self, members: list[Member]) -> None: ...


class Scaler:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def round(self, *_: object) -> None: ...

    def gone(self, name: str, text: str) -> None:
        self.calls.append(text)

    def give_up(self, name: str, error: SppoError) -> None:
        self.calls.append(f"gave up {name}: {error}")


class Up:
    """A run whose roles have all begun."""

    def __init__(self, run_dir: Path) -> None:
        self.cluster, self.broker, self.reporter = Cluster(), Broker(), Reporter()
        self.scaler, self.roster, self.asked = Scaler(), Roster(), list[str]()
        self.watchdog = Watchdog(90, 600)
        run = config.load("quickstart", ["learner.device=cpu"], environment=False)
        parts: dict[str, Any] = {
            "cluster": self.cluster, "registry": self.broker, "keeper": Keeper(),
            "reporter": self.reporter, "scaler": self.scaler,
        }  # fmt: skip
        self.supervisor = Supervisor(
            run_dir=run_dir, run_key="key", restarts=Restarts(3), watchdog=self.watchdog,
            roster=self.roster, asked=self.asked, **parts,
        )  # fmt: skip
        self.supervisor.start_roles(run)
        self.cluster.started.clear()

    def watch(self, *ends: tuple[str, dict[str, Any] | SppoError | None]) -> dict[str, Any]:
        self.cluster.ends = [("", None), *ends]
        return self.supervisor.watch()


DONE = ("learner-0", {"finished": True})
DIED = RoleDiedError("it died\nand its log")


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Up:
    monkeypatch.setattr(restarts, "FIRST_DELAY_S", 0.0)
    return Up(tmp_path)


def test_the_outcome_is_the_learners(up: Up) -> None:
    assert up.watch(DONE) == {"finished": True}
    assert up.cluster.swept == up.broker.left == ["learner-0"]


def test_who_dies_is_buried_and_started_again(up: Up) -> None:
    up.watch(("generator-0", DIED), ("", None), DONE)
    assert up.cluster.started == ["generator-0"]
    assert up.broker.left == ["generator-0", "learner-0"]
    assert "generator-0 is started again in 0 s: it died" in up.reporter.lines


def test_a_worker_that_ends_before_the_learner_is_started_again_too(up: Up) -> None:
    up.watch(("scorer-0", {}), ("", None), DONE)
    assert up.cluster.started == ["scorer-0"]
    assert any("scorer-0 ended before the learner; see" in line for line in up.reporter.lines)


def test_an_error_of_the_users_to_mend_ends_the_run(up: Up) -> None:
    with pytest.raises(ConfigError, match="mend it"):
        up.watch(("generator-0", ConfigError("mend it")))


def test_leavers_and_newcomers_are_the_scalers(up: Up) -> None:
    up.roster["generator-0"].leave_by = float("inf")
    up.watch(("generator-0", {}), ("generator-0", DIED), DONE)
    up.roster["generator-0"].leave_by = None
    up.roster["generator-0"].newcomer = True
    up.broker.present.remove("generator-0")
    up.watch(("generator-0", DIED), DONE)
    assert up.scaler.calls == [
        "generator-0 has left",
        "generator-0 ended while leaving: it died",
        "gave up generator-0: it died\nand its log",
    ]
    assert up.cluster.started == []


def test_a_newcomer_that_was_seen_at_work_is_one_no_more(up: Up) -> None:
    up.roster["generator-0"].newcomer = True
    up.watch(("generator-0", DIED), ("", None), DONE)
    assert up.scaler.calls == []
    assert up.cluster.started == ["generator-0"]


def test_who_hangs_is_ended_once_and_the_reason_is_said(
    up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([{"generator-0": "no heartbeat"}] * 2)
    monkeypatch.setattr(up.watchdog, "hung", lambda *_: next(found, {}))
    up.watch(("", None), ("generator-0", DIED), DONE)
    assert up.cluster.swept == ["generator-0", "generator-0", "learner-0"]  # ended, and buried
    text = "generator-0 is started again in 0 s: generator-0 had hung (no heartbeat) and was ended"
    assert text in up.reporter.lines


def test_a_generator_that_waits_for_its_turn_to_start_is_not_ended(
    up: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Given one that should have come by now
    up.broker.present.remove("generator-0")
    up.watchdog = up.supervisor.watchdog = Watchdog(90, 30)
    up.roster["generator-0"].started_at = time.monotonic() - 60
    up.supervisor.turns = Turns("key")
    # When the learner has the GPU, its time has not begun
    with Turns("key").alone(lambda: None):
        up.watch(("", None), DONE)
    assert "generator-0" not in up.cluster.swept
    # When it is free, or the learner itself waits, it has
    up.watchdog = up.supervisor.watchdog = Watchdog(90, 30)
    assert Turns("key").enter()
    with pytest.raises(RoleDiedError, match="no first heartbeat within"):
        up.watch(("generator-0", DIED))


def test_a_role_without_room_waits_and_a_learner_without_room_ends_the_run(up: Up) -> None:
    up.cluster.room = False
    up.watch(("generator-0", DIED), ("", None), DONE)
    assert any("generator-0 waits: no machine" in line for line in up.reporter.lines)
    assert up.roster["generator-0"].due is not None
    up.roster["generator-0"].due = None
    with pytest.raises(ConfigError, match="room for learner-0"):
        up.watch(("learner-0", DIED), ("", None), DONE)


def test_a_request_to_stop_is_the_learners_and_nobody_else_is_needed(up: Up) -> None:
    up.asked.append("SIGINT")
    up.watch(("", None), ("generator-0", DIED), ("scorer-0", {}), ("", None), DONE)
    assert up.broker.told == ["learner: interrupted"]
    assert up.cluster.started == []
    assert "generator-0 ended while stopping: it died" in up.reporter.lines
    with pytest.raises(RoleDiedError):
        up.watch(("learner-0", DIED))


def test_a_second_request_does_not_wait(up: Up) -> None:
    up.asked += ["SIGINT", "SIGINT"]
    with pytest.raises(SppoError, match=r"without a new checkpoint.*was not waited for"):
        up.watch(("", None))


def test_a_learner_that_gets_on_is_waited_for_and_one_that_stands_still_is_not(up: Up) -> None:
    clock = [0.0]
    up.watchdog._clock = lambda: clock[0]
    up.asked.append("SIGINT")
    up.supervisor.stopping_since = 0.0
    for clock[0] in (100.0, 200.0, 300.0):
        up.supervisor._heed_requests()
        up.broker.progress += 1
        up.supervisor._look_around()
    clock[0] = 430.0
    with pytest.raises(SppoError, match=r"without a new checkpoint.*got on with nothing for 120 s"):
        up.supervisor._heed_requests()


def test_the_others_are_sent_home_when_the_learner_is_done(up: Up) -> None:
    up.cluster.roles = {"generator-0": None, "scorer-0": None}

    def result(name: str) -> dict[str, Any]:
        del up.cluster.roles[name]
        return Cluster.result(up.cluster, name)

    up.cluster.result = result  # type: ignore[method-assign]
    up.cluster.ends = [("generator-0", {}), ("scorer-0", DIED)]
    up.supervisor.dismiss()
    assert up.broker.told == ["workers: the learner is done"]
    assert up.cluster.roles == {}
