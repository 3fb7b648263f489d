"""A real embedded server, and connections to fresh runs on it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sppo.config import BrokerConfig
from sppo.transport.client import Connection
from sppo.transport.redis_broker import RedisBroker
from sppo.transport.server import EmbeddedServer


@pytest.fixture(scope="package")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerConfig]:
    """Settings of a running embedded server."""
    server = EmbeddedServer(tmp_path_factory.mktemp("broker"), max_bytes=16 << 20)
    yield server.start(BrokerConfig(outage_s=2, max_bytes=16 << 20))
    server.stop()


@pytest.fixture
def connection(embedded: BrokerConfig) -> Iterator[Callable[..., Connection]]:
    """Makes connections to one fresh run, with settings of their own."""
    run, made = uuid.uuid4().hex, []

    def make(**settings: Any) -> Connection:
        made.append(Connection(embedded.model_copy(update=settings), run))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def server(connection: Callable[..., Connection]) -> Connection:
    """The run's keys, seen directly."""
    return connection()


@pytest.fixture
def broker(connection: Callable[..., Connection]) -> RedisBroker:
    """A broker of the same run, whose learner has opened it."""
    made = RedisBroker(connection())
    made.tickets.open_epoch("a")
    return made
