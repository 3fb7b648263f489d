"""The process of another rank: from its settings to what it follows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from sppo import config, stop
from sppo.errors import ConfigError
from sppo.learner import follower
from sppo.learner.groups import Fetched
from sppo.learner.place import Place
from sppo.learner.ranks import Solo
from sppo.transport.memory import MemoryBroker
from tests import makers


def test_it_is_the_rank_it_was_told_to_be_until_rank_0_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    run, broker = makers.run_config(learner={"threads": 3}), MemoryBroker()
    given = {
        "config": config.to_json(run), "broker": {"url": "unix:///b", "password": "p"},
        "run_key": "k", "run_dir": str(tmp_path), "device": "cpu",
    }  # fmt: skip
    monkeypatch.setattr(follower.ranks, "follow", lambda: (Solo(), given))

    def connect(settings: config.BrokerConfig, run_key: str, *, wait: bool) -> MemoryBroker:
        assert (settings.password.get_secret_value(), run_key, wait) == ("p", "k", True)
        return broker

    def make(run: config.RunConfig, team: Any, device: str, groups: Any) -> Any:
        assert (run.learner.threads, device, type(groups)) == (3, "cpu", Fetched)
        return SimpleNamespace(follow=lambda: done.append("followed")), None

    monkeypatch.setattr(follower, "connect", connect)
    monkeypatch.setattr(follower.rank, "make", make)
    monkeypatch.setattr(broker, "close", lambda: done.append("closed"))
    monkeypatch.setattr(follower.os, "_exit", lambda code: done.append(code))
    follower.main()
    assert done == ["followed", "closed", 0]


def test_one_that_fails_writes_its_part_of_a_checkpoint_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, broker = Mock(), Mock()
    own.follow.side_effect = RuntimeError("out of memory")
    monkeypatch.setattr(follower, "connect", lambda *_, **__: broker)
    monkeypatch.setattr(follower.rank, "make", lambda *_: (own, None))
    given = {
        "config": config.to_json(makers.run_config()),
        "run_key": "k",
        "run_dir": "",
        "device": "cpu",
    }
    with pytest.raises(RuntimeError, match="out of memory"):
        follower._serve(Solo(), given, Mock())
    own.writer.rescue.assert_called_once_with()
    broker.close.assert_called_once_with()


def test_one_that_is_started_by_hand_hears_the_rest_from_rank_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given rank 0's settings, told to a rank with a broker of its own settings
    served: list[Any] = []
    run = makers.run_config(learner={"ranks": 2, "device": "cpu"}, broker={"url": "unix:///b"})
    told = {"config": config.to_json(run), "run_key": "k", "run_dir": str(tmp_path)}
    team = Solo()
    monkeypatch.setattr(team, "broadcast", lambda _: told)
    monkeypatch.setattr(follower, "meet", lambda place, device, deadline_s: team)
    monkeypatch.setattr(follower, "_serve", lambda *given: served.append(given))
    deaf: list[str] = []
    monkeypatch.setattr(stop, "ignore", lambda: deaf.append("to what rank 0 answers"))
    place = Place(rank=1, size=2, local=0, address="127.0.0.1", port=29500)
    # Then it serves there, unless it does not see the run directory
    follower.by_hand(run, place)
    assert served == [(team, told | {"device": "cpu"}, run.broker)]
    assert deaf
    told["run_dir"] = "/nowhere"
    with pytest.raises(ConfigError, match=r"--run-dir /nowhere .* rank 1 on .*: put it on a file"):
        follower.by_hand(run, place)
