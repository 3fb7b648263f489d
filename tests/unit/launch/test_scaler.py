"""Requests to scale, one round after another, on a cluster that says what it is told to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sppo import config
from sppo.config import RunConfig
from sppo.errors import BrokerError, RoleDiedError
from sppo.launch import room, scaler
from sppo.launch import run_dir as run_dirs
from sppo.launch.room import Demand, Machine
from sppo.launch.roster import Post, Roster
from sppo.launch.scaler import Scaler


class Cluster:
    """Room for so many CPUs in all, and newcomers' places as they are given out."""

    @property
    def places(self) -> Cluster:
        return self

    def __init__(self, cpus: float = 4, gpus: float = 0) -> None:
        self.cpus, self.gpus = cpus, gpus
        self.asked: dict[str, Demand] = {}
        self.granted = True
        self.released: list[str] = []
        self.swept: list[str] = []

    def check(self, config: RunConfig, counts: Mapping[str, int]) -> None:
        room.seats([Machine(name="here", cpus=self.cpus, gpus=self.gpus)], config, counts)

    def reserve(self, name: str, wanted: Demand) -> bool:
        self.asked[name] = wanted
        return self.granted

    def release(self, name: str) -> None:
        self.released.append(name)

    def sweep(self, name: str) -> None:
        self.swept.append(name)

    def describe(self, wanted: Demand) -> str:
        return "1 CPUs on one machine"


class Broker:
    def __init__(self) -> None:
        self.away = False
        self.told: list[str] = []

    def request_stop(self, audience: str, reason: str) -> None:
        if self.away:
            raise BrokerError("away")
        self.told.append(audience)


class Job:
    """A job of one generator and one scorer with its supervisor's side."""

    def __init__(self, run_dir: Path, *given: str, generators: int = 1) -> None:
        run = config.load(
            "quickstart",
            ["generator.cpus=1", "learner.device=cpu", *given, f"generator.replicas={generators}"],
            environment=False,
        )
        names = {"learner-0": "learner", "scorer-0": "scorer"}
        names |= {f"generator-{i}": "generator" for i in range(generators)}
        self.roster = Roster({name: Post(role=role, config=run) for name, role in names.items()})
        self.run_dir, self.cluster, self.broker = run_dir, Cluster(), Broker()
        self.started: list[str] = []
        self.texts: list[str] = []
        self.scaler = Scaler(run_dir, self.roster, lambda kind, text, **_: self.texts.append(text))

    def ask(self, **wanted: int) -> None:
        run_dirs.write_json(self.run_dir / "scale.json", {"id": str(wanted), "wanted": wanted})
        self.round()

    def round(self) -> None:
        arguments: Any = (self.cluster, self.broker, self.started.append)
        self.scaler.round(*arguments)

    @property
    def replicas(self) -> int:
        return self.roster["learner-0"].config.generator.replicas


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_newcomers_are_started_once_and_a_new_learner_waits_for_as_many(job: Job) -> None:
    job.ask(generator=3, scorer=2)
    job.round()
    job.round()
    assert job.started == ["generator-1", "generator-2", "scorer-1"]
    assert job.replicas == 3
    assert job.scaler.state()["refused"] == ""


def test_leavers_are_the_newest_and_their_names_are_free_again(job: Job) -> None:
    job.ask(generator=3)
    job.round()
    job.ask(generator=1)
    assert job.broker.told == ["generator-1", "generator-2"]
    assert job.scaler.state()["leaving"] == ["generator-1", "generator-2"]
    job.scaler.gone("generator-1", "left")
    job.ask(generator=2)
    job.round()
    assert job.started[-1] == "generator-1"  # generator-2 is still there


def test_more_than_there_is_changes_nothing(job: Job) -> None:
    job.ask(generator=9, scorer=2)
    job.round()
    assert job.started == []
    assert job.replicas == 1
    assert "asks for 9 CPUs" in job.scaler.state()["refused"]


def test_shares_of_one_gpu_are_those_of_the_start(tmp_path: Path) -> None:
    # Given a GPU that the learner shares with two generators
    job = Job(tmp_path, "learner.device=cuda", "launch.share_gpu=true", generators=2)
    job.cluster = Cluster(gpus=1)
    # When one leaves and comes again
    job.ask(generator=1)
    job.scaler.gone("generator-1", "left")
    job.ask(generator=2)
    job.round()
    # Then its share is what it was
    assert job.started == ["generator-1"]
    assert job.cluster.asked["generator-1"].gpus == 0.25
    # And a third, for whom there is none, is refused with the way to have it
    job.ask(generator=3)
    assert "launch.share_gpu = true gave each of 2" in job.scaler.state()["refused"]
    assert "--set generator.replicas=3" in job.scaler.state()["refused"]


def test_no_single_machine_with_room_changes_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.cluster.granted = False
    job.ask(generator=3, scorer=2)
    job.round()
    assert job.started == []
    monkeypatch.setattr(scaler, "PLACE_TIMEOUT_S", -1.0)
    job.round()
    assert job.started == []
    assert job.replicas == 1
    assert sorted(job.cluster.released) == ["generator-1", "generator-2", "scorer-1"]
    assert "no machine of the cluster has room" in job.scaler.state()["refused"]


def test_a_newcomer_that_never_works_is_given_up_and_the_run_goes_on(job: Job) -> None:
    job.ask(generator=2)
    job.round()
    assert [name for name, post in job.roster.items() if post.newcomer] == ["generator-1"]
    job.scaler.give_up("generator-1", RoleDiedError("out of memory"))
    job.round()
    assert "generator-1" not in job.roster
    assert job.replicas == 1
    assert "out of memory" in job.scaler.state()["refused"]


def test_a_broker_that_is_away_delays_the_leavers(job: Job) -> None:
    job.ask(generator=2)
    job.round()
    job.broker.away = True
    with pytest.raises(BrokerError):
        job.ask(generator=1)
    job.broker.away = False
    job.round()
    assert job.broker.told == ["generator-1"]


def test_one_that_waits_to_be_started_again_leaves_at_once(job: Job) -> None:
    job.ask(generator=2)
    job.round()
    job.roster["generator-1"].due = 0.0
    job.ask(generator=1)
    assert [name for name, post in job.roster.items() if post.due is not None] == []
    assert "generator-1" not in job.roster


def test_one_that_does_not_leave_is_ended(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.ask(generator=2)
    job.round()
    monkeypatch.setattr(scaler, "LEAVING_TIMEOUT_S", -1.0)
    job.ask(generator=1)
    job.round()
    job.round()
    assert job.cluster.swept == ["generator-1"]
