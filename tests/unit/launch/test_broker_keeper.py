"""The keeper of a server that answers, is silent or dies as the test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sppo import config
from sppo.config import BrokerConfig, RunConfig
from sppo.errors import BrokerError
from sppo.launch import broker_keeper as module
from sppo.launch.broker_keeper import POLL_S, BrokerKeeper
from sppo.launch.restarts import Restarts


class Server:
    """Stands for the embedded one."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.pid: int | None = 7
        self.silent = False
        self.restarts = 0
        self.stopped = False

    def start(self, settings: BrokerConfig) -> BrokerConfig:
        return settings.model_copy(update={"url": "unix:///s"})

    def credentials(self, settings: BrokerConfig, role: str) -> BrokerConfig:
        return settings.model_copy(update={"username": role})

    def answers(self) -> bool:
        return self.pid is not None and not self.silent

    def restart(self) -> None:
        self.restarts, self.pid, self.silent = self.restarts + 1, 8, False

    def stop(self) -> None:
        self.stopped = True


class Client:
    def close(self) -> None: ...


class Kept:
    """A keeper on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.now = 100.0
        self.told: list[str] = []
        self.away = 0
        self.connected: list[BrokerConfig] = []
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module, "EmbeddedServer", Server)
        monkeypatch.setattr(module, "connect", self._connect)
        self.keeper = BrokerKeeper(
            tmp_path, Restarts(2, lambda: self.now), lambda kind, text, **_: self.told.append(text),
            self._count,
        )  # fmt: skip

    def _connect(self, settings: BrokerConfig, run_key: str) -> Client:
        self.connected.append(settings)
        return Client()

    def _count(self) -> None:
        self.away += 1

    @property
    def server(self) -> Any:
        return self.keeper._server

    def after(self, seconds: float) -> bool:
        self.now += seconds
        return self.keeper.there()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kept:
    return Kept(monkeypatch, tmp_path)


def run(*overrides: str) -> RunConfig:
    return config.load("quickstart", list(overrides), environment=False)


def test_roles_get_the_address_their_own_credentials_and_a_token(kept: Kept) -> None:
    with kept.keeper.open(run(), "key") as (settings, _):
        assert settings.broker.url == "unix:///s"
        assert settings.scorer.token.get_secret_value()
        assert kept.keeper.credentials(settings.broker, "scorer").username == "scorer"
        assert kept.keeper.pid == 7
        assert kept.connected[0].outage_s == 1.0  # who mends the server does not wait for it
        server = kept.server
    assert server.stopped


def test_a_users_own_server_is_only_used(kept: Kept) -> None:
    with kept.keeper.open(run("broker.url=redis://127.0.0.1:1"), "key") as (settings, _):
        assert kept.keeper.there()
        assert kept.keeper.credentials(settings.broker, "scorer") == settings.broker
        assert kept.keeper.pid is None
        assert kept.connected[0].outage_s == settings.broker.outage_s


def test_one_that_died_is_started_again_at_once_and_too_often_is_the_end(kept: Kept) -> None:
    with kept.keeper.open(run(), "key"):
        assert kept.after(1)
        for times in (1, 2):
            kept.server.pid = None
            assert kept.after(1)
            assert kept.server.restarts == times
        assert kept.told == ["the broker is started again: it died"] * 2
        kept.server.pid = None
        with pytest.raises(BrokerError, match="broker died 3 times"):
            kept.after(1)


def test_one_that_is_silent_is_waited_for_then_started_again(kept: Kept) -> None:
    with kept.keeper.open(run(), "key"):
        assert kept.after(1)
        kept.server.silent = True
        assert not kept.after(5)
        assert not kept.after(5)
        assert kept.after(1)
        assert kept.told == ["the broker is started again: it gave no answer for 10 s"]


def test_nobody_is_blamed_for_the_time_without_an_answer(kept: Kept) -> None:
    with kept.keeper.open(run(), "key"):
        assert kept.after(1)
        assert kept.away == 0
        kept.server.silent = True
        assert not kept.after(2 * POLL_S)
        kept.server.silent = False
        assert kept.after(1)
        assert kept.away == 1


def test_work_that_loses_the_broker_is_done_later_or_ends_the_run(kept: Kept) -> None:
    def lost() -> None:
        raise BrokerError("gone")

    with kept.keeper.open(run(), "key"):
        assert kept.keeper.ask(list)
        assert not kept.keeper.ask(lost)
    with pytest.raises(BrokerError):
        BrokerKeeper(Path(), Restarts(1), print, list).ask(lost)
