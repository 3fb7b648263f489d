"""A generator's side of a sync, over real gloo sockets."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sppo.errors import WeightSyncError
from sppo.generators.fake import FakeEngine
from sppo.transport.memory import MemoryBroker
from sppo.types import SamplingParams, Version
from sppo.weights.publisher import WeightPublisher
from tests.unit.weights.peers import Peer, published


def test_an_engine_that_fails_is_named_with_its_reason(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    class Broken(FakeEngine):
        async def load_weights(self, update: dict[str, Any], version: Version) -> None:
            raise RuntimeError("no room for weights")

    peer = Peer(broker, "generator-0", Broken())
    with pytest.raises(
        WeightSyncError, match=r"applied: generator-0: RuntimeError: no room.*phase ready"
    ):
        published(publisher, 0, seed=0)
    peer._thread.join(5)  # weights half loaded: the generator ends by itself
    assert isinstance(peer.error, WeightSyncError)


def test_an_engine_that_hangs_in_the_transfer_is_named(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    class Hangs(FakeEngine):
        async def load_weights(self, update: dict[str, Any], version: Version) -> None:
            await asyncio.sleep(60)

    peer = Peer(broker, "generator-0", Hangs())
    with pytest.raises(
        WeightSyncError, match=r"phase applied: generator-0 did not answer within 2 s"
    ):
        published(publisher, 0, seed=0)
    peer.stop()


def test_completions_in_flight_go_on_under_the_new_weights(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    peer = Peer(broker, "generator-0", FakeEngine(token_s=0.05))
    published(publisher, 0, seed=0)
    sampling = SamplingParams(completions=4, temperature=1.0, max_tokens=30, seed=1)
    running = asyncio.run_coroutine_threadsafe(peer.engine.sample([1], sampling, "r"), peer._loop)
    time.sleep(0.3)  # some tokens under the first weights
    published(publisher, 1, seed=1)
    spans = [c.spans for c in running.result(10)]
    assert any(len(s) == 2 for s in spans)
    assert all(s[-1].version == Version(epoch="e", n=1) for s in spans if len(s) == 2)
    peer.stop()
