"""How a server is doing, asked of a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.config import BrokerConfig
from sppo.errors import BrokerError
from sppo.transport import health
from sppo.transport.client import make_client
from tests import brokers


def test_the_embedded_server_is_asked(embedded: BrokerConfig) -> None:
    found = health.look(embedded)
    assert found.server.startswith("Valkey")
    assert 0 < found.ping_s < 5
    assert 0 < found.write_s < 5
    assert found.append_only
    assert found.fsync == ""  # its users may not ask
    assert not found.write_failed
    assert abs(found.clock_s) < 1


def test_a_server_of_ones_own_tells_more_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    with brokers.plain_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "no") as config:
        found = health.look(config)
        client = make_client(config)
        assert client.dbsize() == 0
        client.close()
    assert found.server.startswith("Redis")
    assert (found.append_only, found.fsync) == (True, "no")


def test_one_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="is the server running"):
        health.look(BrokerConfig(url=f"unix://{tmp_path}/none", outage_s=30))
