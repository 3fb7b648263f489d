"""Who is waited for, and who gets weights when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sppo.config import RunConfig
from sppo.errors import WeightSyncError
from sppo.learner import fleet as module
from sppo.learner.fleet import Fleet
from sppo.learner.lineage import Lineage
from sppo.learner.orders import Weights
from sppo.learner.stops import Stopped
from sppo.learner.turn import Turn
from sppo.transport.memory import MemoryBroker
from sppo.types import Member
from sppo.weights.publisher import SyncReport
from tests import makers
from tests.unit.learner.fakes import FakeRank, events, lineage, records, stops


class Publisher:
    """Brings everyone to a version at once."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.published: list[Any] = []

    def publish(self, version: Any, weights: Any, *, while_alone: Callable[[], None]) -> SyncReport:
        list(weights)
        self.published.append(version)
        for member in self.broker.registry.members():
            join(self.broker, member.name, applied=str(version))
        return SyncReport(version=version, members=("g",), stage_s=1.0, ready_s=1.0, transfer_s=2.0)

    def close(self) -> None:
        """Nothing to leave."""


def join(broker: MemoryBroker, name: str, *, role: Any = "generator", applied: str = "") -> None:
    broker.registry.heartbeat(Member(name=name, role=role, life=name, applied=applied), 1e6)


class Setting:
    def __init__(self, folder: Path, config: RunConfig | None = None) -> None:
        config = config or makers.run_config(scorer={"mode": "inline"})
        self.broker, self.rank = MemoryBroker(), FakeRank()
        self.line: Lineage = lineage(config, folder / "c", self.rank)
        self.publisher: Any = Publisher(self.broker)
        kept, asked = records(config, self.broker, folder), stops(self.broker)
        self.fleet = Fleet(
            config, self.broker.registry, self.publisher, self.rank, kept, asked,  # type: ignore[arg-type]
            Turn(config, "run", kept, asked),
        )  # fmt: skip


def test_it_goes_on_when_all_are_there_or_some_when_time_is_up(tmp_path: Path) -> None:
    config = makers.run_config(
        generator={"replicas": 2, "start_timeout_s": 0.01}, scorer={"mode": "inline"}
    )
    there = Setting(tmp_path, config)
    with pytest.raises(WeightSyncError, match=r"2 generator.* did not come; see their logs"):
        there.fleet.await_members()
    join(there.broker, "generator-0")
    there.fleet.await_members()
    join(there.broker, "generator-1")
    there.fleet.await_members()


def test_without_its_scorer_a_run_does_not_begin(tmp_path: Path) -> None:
    there = Setting(tmp_path, makers.run_config(generator={"start_timeout_s": 0.01}))
    join(there.broker, "generator-0")
    with pytest.raises(WeightSyncError, match=r"1 scorer\(s\) did not come"):
        there.fleet.await_members()


def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    there = Setting(tmp_path)
    there.broker.registry.request_stop("learner", "enough")
    with pytest.raises(Stopped):
        there.fleet.await_members()


def test_a_publication_is_of_the_published_version_and_counted(tmp_path: Path) -> None:
    there = Setting(tmp_path)
    there.line.advance(2)  # trained on, not published
    assert there.fleet.publish(there.line) == 4.0
    assert [v.n for v in there.publisher.published] == [0]
    assert there.rank.orders[-1] == Weights(snapshot="anchor")
    assert there.line.life()["syncs"] == 1
    (event,) = events(there.broker, "sync")
    assert (event["step"], event["members"], event["transfer_s"]) == (0, ["g"], 2.0)


def test_newcomers_are_met_at_once_and_the_late_are_given_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    there = Setting(tmp_path)
    join(there.broker, "generator-0")
    there.fleet.publish(there.line)
    assert not there.fleet.meet_newcomers(there.line)  # everyone has the weights
    join(there.broker, "generator-1")
    assert not there.fleet.meet_newcomers(there.line)  # its heartbeat may be older than the sync
    now[0] += module.HEARTBEAT_LAG_S
    assert there.fleet.meet_newcomers(there.line)
    assert there.fleet.names() == "generator-0, generator-1"
    # One that was late holds older weights: it is brought along, but prolongs nothing
    join(there.broker, "generator-1", applied="another:0")
    now[0] += module.HEARTBEAT_LAG_S
    assert not there.fleet.meet_newcomers(there.line)
    assert len(there.publisher.published) == 2
    now[0] += module.LATE_LAG_DEADLINES * 60
    assert not there.fleet.meet_newcomers(there.line)
    assert len(there.publisher.published) == 3
