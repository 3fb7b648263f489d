"""A generator's side of a sync, over real gloo sockets."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sppo.errors import WeightsMixed, WeightSyncError
from sppo.generators.fake import FakeEngine
from sppo.transport.memory import MemoryBroker
from sppo.types import SamplingParams, Version
from sppo.weights import receiver
from sppo.weights.gloo import GlooSender
from sppo.weights.publisher import WeightPublisher
from tests.unit.weights.peers import Peer, published, same, weights


def test_an_engine_that_fails_is_named_with_its_reason(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    class Broken(FakeEngine):
        async def load_weights(self, update: dict[str, Any], version: Version, *moved: Any) -> None:
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
        async def load_weights(self, update: dict[str, Any], version: Version, *moved: Any) -> None:
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


class Mixing(FakeEngine):
    """An engine whose next transfer breaks off while it is loaded."""

    broken = False
    resumed = 0

    async def load_weights(self, update: dict[str, Any], version: Version, *moved: Any) -> None:
        await super().load_weights(update, version, *moved)
        if self.broken:
            self.broken = False
            self.weights = {name: w * 0 for name, w in self.weights.items()}
            raise WeightsMixed("transfer aborted: half of it is here")

    async def resume(self) -> None:
        self.resumed += 1
        await super().resume()


def test_an_engine_of_two_versions_stays_paused_until_a_whole_transfer_came(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    # Given an engine whose second sync breaks off while it is loaded
    engine = Mixing()
    peer = Peer(broker, "generator-0", engine)
    published(publisher, 0, seed=0)
    engine.broken = True
    # When the learner sends the same version again, by itself
    sent = weights(1)
    report = publisher.publish(Version(epoch="e", n=1), sent.items(), while_alone=lambda: None)
    # Then the same life of the generator has it whole, and did not sample in between
    assert "half of it is here" in report.failures[0]
    assert same(engine.weights, sent)
    assert engine.resumed == 2
    assert peer.error is None
    peer.stop()


def test_an_engine_of_two_versions_ends_when_nobody_sends_it_weights(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "MIXED_S", 0.0)
    sender = GlooSender("127.0.0.1")
    publisher = WeightPublisher(broker.registry, broker.mailbox, sender, phase_timeout_s=0.3)
    engine = Mixing()
    engine.broken = True
    peer = Peer(broker, "generator-0", engine)
    with pytest.raises(WeightSyncError, match="half of it is here"):
        published(publisher, 0, seed=0)
    peer._thread.join(5)
    publisher.close()
    assert "weights of two versions" in str(peer.error)
    assert engine.resumed == 0
