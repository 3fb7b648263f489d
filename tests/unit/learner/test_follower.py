"""The process of another rank: from its settings to what it follows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sppo import config
from sppo.learner import follower
from sppo.learner.groups import Fetched
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
