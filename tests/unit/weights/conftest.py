"""A broker, and a publisher over real gloo sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sppo.transport.memory import MemoryBroker
from sppo.weights.gloo import GlooSender
from sppo.weights.publisher import WeightPublisher


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def publisher(broker: MemoryBroker) -> Iterator[WeightPublisher]:
    made = WeightPublisher(
        broker.registry, broker.mailbox, GlooSender("127.0.0.1"), phase_timeout_s=2
    )
    yield made
    made.close()
