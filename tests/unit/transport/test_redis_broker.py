"""A connection to a run: what it refuses to work with, and what it finds after a run."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from sppo.config import BrokerConfig
from sppo.errors import BrokerError, ConfigError
from sppo.transport.client import Connection
from sppo.transport.redis_broker import RedisBroker, connect, glob
from tests import makers


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("http://127.0.0.1:1", ConfigError, "broker.url = 'http://127.0.0.1:1'"),
        ("redis://127.0.0.1:1", BrokerError, "cannot be reached"),
    ],
)
def test_an_address_without_a_server_is_refused(
    url: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        connect(BrokerConfig(outage_s=30).model_copy(update={"url": url}), "run")


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ({"maxmemory": 1 << 30, "maxmemory_policy": "allkeys-lru"}, "is allkeys-lru.*noeviction"),
        ({"maxmemory": 10 << 20, "maxmemory_policy": "noeviction"}, "lower the one to 8388608"),
    ],
)
def test_a_server_that_would_drop_keys_or_has_too_little_memory_is_refused(
    memory: dict[str, Any],
    words: str,
    server: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server.client, "info", lambda _: memory)
    with pytest.raises(ConfigError, match=words):
        RedisBroker(server).check_memory()


def test_a_server_with_room_will_do(broker: RedisBroker) -> None:
    broker.check()
    broker.check_memory()


def test_what_a_run_left_behind_is_named(broker: RedisBroker, server: Connection) -> None:
    assert broker.leftovers() == []
    broker.tickets.issue([makers.ticket()])
    server.client.set(server.key("b:lost"), b"x")
    server.client.set(server.key("b:late"), b"x", ex=60)
    server.client.set(server.key("bytes"), 1)
    assert broker.leftovers() == [
        f"frame {server.key('b:lost')} without an expiry",
        "bytes 1",
        "open tickets 1",
    ]


def test_leftovers_are_those_of_this_run_whatever_its_name(
    embedded: BrokerConfig, connection: Callable[..., Connection]
) -> None:
    name = f"{uuid.uuid4().hex}[*?\\"
    here, there = Connection(embedded, name), Connection(embedded, f"{name}x")
    there.client.set(there.key("b:g"), b"x")
    assert RedisBroker(here).leftovers() == []
    assert len(RedisBroker(there).leftovers()) == 1
    here.close()
    there.close()
    assert glob("a*[b") == "a\\*\\[b"
