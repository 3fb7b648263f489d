"""Weight syncs over real gloo sockets between a publisher and several receivers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import torch

from sppo.errors import TransferAborted, WeightSyncError
from sppo.generators.fake import FakeEngine
from sppo.transport.memory import MemoryBroker
from sppo.types import Member, Version
from sppo.weights import gloo
from sppo.weights.publisher import WeightPublisher
from tests.unit.weights.peers import Peer, published, same, weights


def test_every_live_generator_gets_the_same_bits(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    peers = [Peer(broker, f"generator-{i}") for i in range(2)]
    for n in range(3):
        sent = published(publisher, n, seed=n)
        for peer in peers:
            assert same(peer.engine.weights, sent)
            assert peer.receiver.applied == Version(epoch="e", n=n)
    for peer in peers:
        peer.stop()


def test_a_newcomer_joins_at_the_next_sync_and_a_leaver_is_forgotten(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    first = Peer(broker, "generator-0")
    published(publisher, 0, seed=0)
    second = Peer(broker, "generator-1")
    sent = published(publisher, 1, seed=1)
    assert same(second.engine.weights, sent)
    first.stop()
    broker.registry.leave("generator-0")
    sent = published(publisher, 2, seed=2)
    assert same(second.engine.weights, sent)
    assert not same(first.engine.weights, sent)
    second.stop()


def test_a_silent_generator_costs_one_deadline_and_the_sync_goes_on(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    peer = Peer(broker, "generator-0")
    broker.registry.heartbeat(
        Member(name="generator-1", role="generator"), 60
    )  # registered, but nobody answers
    report = publisher.publish(Version(epoch="e", n=0), weights(0).items())
    assert report.members == ("generator-0",)
    assert 2 <= report.ready_s < 5
    peer.stop()


def test_nobody_in_time_is_an_error_that_names_who(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    with pytest.raises(WeightSyncError, match="no live generator"):
        published(publisher, 0, seed=0)
    broker.registry.heartbeat(Member(name="generator-7", role="generator", host="west"), 60)
    with pytest.raises(WeightSyncError, match=r"phase ready.*generator-7 on west.*2 s"):
        published(publisher, 0, seed=0)


class Once(FakeEngine):
    """An engine that does something once when weights come, and is well afterwards."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    async def load_weights(self, update: dict[str, Any], version: Version, *moved: Any) -> None:
        fault, self.fault = self.fault, ""
        if fault == "leaves":  # its connections end, as those of a process that is killed
            self._receiver.close()
            raise TransferAborted("transfer aborted: pulled the plug")
        if fault == "hangs":
            await asyncio.sleep(4)  # longer than the publisher's deadline
            raise TransferAborted("transfer aborted: was elsewhere")
        await super().load_weights(update, version, *moved)


@pytest.mark.parametrize("fault", ["leaves", "hangs"])
def test_a_member_that_fails_in_the_transfer_costs_a_deadline_and_all_get_the_weights(
    broker: MemoryBroker, publisher: WeightPublisher, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    # Given a standing group of three, and more bytes than sockets hold, in many messages
    monkeypatch.setattr(gloo, "BUCKET_BYTES", 4 << 20)
    large = {f"layer.{i}": torch.randn(1 << 20) for i in range(12)}
    faulty = Once("")
    peers = [Peer(broker, f"generator-{i}", faulty if i == 1 else None) for i in range(3)]
    publisher.publish(Version(epoch="e", n=0), large.items())
    # When one fails in the middle of the next transfer
    faulty.fault = fault
    started = time.monotonic()
    sent = {name: w + 1 for name, w in large.items()}
    report = publisher.publish(Version(epoch="e", n=1), sent.items(), while_alone=lambda: None)
    # Then it costs about a deadline, nobody who is well is left out, and they hold the same bits
    assert time.monotonic() - started < 2 * 3
    assert {"generator-0", "generator-2"} <= set(report.members)
    for i in (0, 2):
        assert same(peers[i].engine.weights, sent)
    # And a member that comes to itself takes part again
    deadline = time.monotonic() + 10
    while not same(faulty.weights, sent) and time.monotonic() < deadline:
        publisher.publish(Version(epoch="e", n=2), sent.items(), while_alone=lambda: None)
    assert same(faulty.weights, sent)
    for peer in peers:
        peer.stop()
        assert peer.error is None


def test_a_dead_member_is_waited_for_no_longer_than_its_registration(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    peer = Peer(broker, "generator-0")
    broker.registry.heartbeat(
        Member(name="generator-1", role="generator"), 0.7
    )  # died just after its last heartbeat
    report = publisher.publish(Version(epoch="e", n=0), weights(0).items())
    assert report.members == ("generator-0",)
    assert report.ready_s < 2.5
    peer.stop()


def test_a_process_that_takes_over_a_name_is_met_anew(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    first = Peer(broker, "generator-0", life="a")
    published(publisher, 0, seed=0)
    first.stop()
    second = Peer(broker, "generator-0", life="b")
    sent = published(publisher, 1, seed=1)
    assert same(second.engine.weights, sent)
    second.stop()


def test_a_learner_without_generators_waits_for_one(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    peers: list[Peer] = []
    asked: list[int] = []

    def while_alone() -> None:
        asked.append(1)
        if len(asked) == 2:
            peers.append(Peer(broker, "generator-0"))

    sent = weights(0)
    publisher.publish(Version(epoch="e", n=0), sent.items(), while_alone=while_alone)
    assert len(asked) >= 2
    assert same(peers[0].engine.weights, sent)
    peers[0].stop()


class Slow(FakeEngine):
    """An engine that takes a part of the deadline for each bucket."""

    async def load_weights(self, update: dict[str, Any], version: Version, *moved: Any) -> None:
        def dawdle() -> None:
            moved[0]()
            time.sleep(0.1)

        await super().load_weights(update, version, dawdle)


def test_a_transfer_may_take_any_time_while_it_moves(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given eight buckets, each more than a socket holds, and one deadline for a few of them
    monkeypatch.setattr(gloo, "BUCKET_BYTES", 8 << 20)
    large = {f"layer.{i}": torch.ones(2 << 20) * i for i in range(8)}
    sender = gloo.GlooSender("127.0.0.1")
    publisher = WeightPublisher(broker.registry, broker.mailbox, sender, phase_timeout_s=0.5)
    peer = Peer(broker, "generator-0", Slow(), timeout_s=0.3)
    # When they are sent
    started = time.monotonic()
    report = publisher.publish(Version(epoch="e", n=0), large.items())
    # Then the whole takes longer than any deadline, and nothing failed
    assert time.monotonic() - started > 0.7
    assert report.failures == ()
    assert same(peer.engine.weights, large)
    publisher.close()
    peer.stop()
