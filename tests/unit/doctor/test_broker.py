"""Brokers that keep nothing, do not answer or have another time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sppo.config import BrokerConfig
from sppo.doctor import broker
from sppo.doctor.findings import Run, made
from sppo.transport.health import Health
from tests import brokers

from .conftest import line, seen

Running = Callable[..., Run]
WELL = Health(
    server="Redis 8", ping_s=1e-4, write_s=1e-3, append_only=True, fsync="everysec",
    write_failed=False, clock_s=0.0,
)  # fmt: skip


def test_an_embedded_one_is_started_looked_at_and_ended(run: Running, tmp_path: Path) -> None:
    found = broker.broker(run())
    assert line(found, "broker").words.startswith("Valkey")
    assert line(found, "persistence").state == "ok"
    assert line(found, "clock").state == "skip"
    assert not list(tmp_path.rglob(".sppo-doctor-*"))


def test_a_server_that_keeps_nothing_is_a_warning(run: Running, tmp_path: Path) -> None:
    with brokers.plain_redis(tmp_path) as config:
        found = broker.broker(run(broker=config))
    it = line(found, "persistence")
    assert (it.state, "appendonly is off" in it.words) == ("warn", True)
    assert it.mend.startswith("appendonly yes")
    assert line(found, "broker").words.startswith("Redis")


def test_a_server_that_does_not_answer_fails(run: Running, tmp_path: Path) -> None:
    gone = BrokerConfig(url=f"unix://{tmp_path}/none.sock")
    (it,) = made("broker", broker.broker, run(broker=gone))
    assert (it.state, "is the server running?" in it.words) == ("fail", True)


def test_a_server_that_may_drop_keys_fails(run: Running, tmp_path: Path) -> None:
    options = ("--maxmemory", "8gb", "--maxmemory-policy", "allkeys-lru")
    with brokers.plain_redis(tmp_path, *options) as config:
        (it,) = made("broker", broker.broker, run(broker=config))
    assert (it.state, "set noeviction" in it.words) == ("fail", True)


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ({}, "ok", "appendfsync everysec: a second's work"),
        ({"fsync": "no"}, "warn", "appendfsync is no"),
        ({"fsync": ""}, "ok", "not told to this user"),
        ({"write_failed": True}, "fail", "did not succeed"),
    ],
)
def test_what_is_kept(change: dict[str, object], state: str, words: str) -> None:
    it = broker._kept(replace(WELL, **change))  # type: ignore[arg-type]
    assert (it.state, words in it.words) == (state, True)


def test_a_slow_server_is_a_warning() -> None:
    assert broker._speed(WELL).state == "ok"
    assert broker._speed(replace(WELL, ping_s=0.2)).state == "warn"


def test_clocks_are_compared_with_a_server_elsewhere(run: Running) -> None:
    away = run(broker=BrokerConfig(url="rediss://broker.example.org:6379")).config
    assert broker._clock(away, WELL).state == "ok"
    it = broker._clock(away, replace(WELL, clock_s=-12.0))
    assert (it.state, "12.00 s behind" in it.words) == ("warn", True)


def test_states_of_a_plain_run(run: Running) -> None:
    assert set(seen(broker.broker(run()))) == {"broker", "persistence", "clock"}
