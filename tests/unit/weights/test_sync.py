"""Weight syncs over real gloo sockets between a publisher and several receivers with cheap
engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.errors import TransferAborted, WeightSyncError
from sppo.generators.fake import FakeEngine
from sppo.transport.memory import MemoryBroker
from sppo.types import Member, SamplingParams, Version
from sppo.weights import gloo
from sppo.weights.gloo import GlooSender
from sppo.weights.publisher import WeightPublisher
from sppo.weights.receiver import WeightReceiver


class Peer:
    """A generator's weight receiver on an event loop of its own."""

    def __init__(
        self, broker: MemoryBroker, name: str, engine: FakeEngine | None = None, *, life: str = "a"
    ) -> None:
        self.engine = engine or FakeEngine()
        self.receiver = WeightReceiver(broker.mailbox, self.engine, name, phase_timeout_s=5)
        self.error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._stopped = threading.Event()
        self._beat(broker, name, life)
        threading.Thread(target=self._beats, args=(broker, name, life), daemon=True).start()

    def _beat(self, broker: MemoryBroker, name: str, life: str) -> None:
        broker.registry.heartbeat(
            Member(name=name, role="generator", life=life, ready_s=time.monotonic()), 60
        )

    def _beats(self, broker: MemoryBroker, name: str, life: str) -> None:
        while not self._stopped.wait(0.3):
            self._beat(broker, name, life)

    def _run(self) -> None:
        async def follow() -> None:
            await self.engine.start()
            await self.receiver.run()

        self._task = self._loop.create_task(follow())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            return
        except WeightSyncError as error:
            self.error = error

    def stop(self) -> None:
        self._stopped.set()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(5)


def weights(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        "embed": torch.randn(1000, 33).bfloat16(),
        "layer.0.weight": torch.randn(33, 7),
        "layer.0.bias": torch.randn(1).bfloat16(),  # an odd number of bytes before a float32
        "norm": torch.randn(5),
    }


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


def published(publisher: WeightPublisher, n: int, seed: int) -> dict[str, Tensor]:
    sent = weights(seed)
    publisher.publish(Version(epoch="e", n=n), sent.items())
    return sent


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


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
    broker.registry.heartbeat(Member(name="generator-7", role="generator"), 60)
    with pytest.raises(WeightSyncError, match=r"phase ready.*generator-7.*2 s"):
        published(publisher, 0, seed=0)


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


class Once(FakeEngine):
    """An engine that does something once when weights come, and is well afterwards."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    async def load_weights(self, update: dict[str, Any], version: Version) -> None:
        fault, self.fault = self.fault, ""
        if fault == "leaves":  # its connections end, as those of a process that is killed
            self._receiver.close()
            raise TransferAborted("transfer aborted: pulled the plug")
        if fault == "hangs":
            await asyncio.sleep(4)  # longer than the publisher's deadline
            raise TransferAborted("transfer aborted: was elsewhere")
        await super().load_weights(update, version)


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


def test_bytes_that_are_not_those_staged_are_refused(broker: MemoryBroker) -> None:
    class Corrupting(GlooSender):
        times = 100

        def transfer(self, *, meet: bool) -> Callable[[], None]:
            wrong, collective = int(self.times > 0), super().transfer(meet=meet)
            self.times -= 1

            def corrupted() -> None:
                self._staged[0][100] ^= wrong
                collective()
                self._staged[0][100] ^= wrong

            return corrupted

    sender = Corrupting("127.0.0.1")
    publisher = WeightPublisher(broker.registry, broker.mailbox, sender, phase_timeout_s=2)
    peer = Peer(broker, "generator-0")
    with pytest.raises(
        WeightSyncError, match=r"failed 5 times.*checksum mismatch in the bucket of embed"
    ):
        published(publisher, 0, seed=0)
    assert peer.engine.weights == {}
    # One bad transfer is repeated, and the engine never sees it
    sender.times = 1
    assert same(published(publisher, 1, seed=1), peer.engine.weights)
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


def test_buckets_tile_the_weights_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo, "BUCKET_BYTES", 64)
    names = [f"w{i}" for i in range(6)]
    shapes = [[4], [30], [2, 3], [], [100], [1]]
    plan = gloo.buckets(names, ["float32"] * 6, shapes)
    assert [n for b in plan for n in b.names] == names
    assert [b.nbytes for b in plan] == [16, 120, 32, 400, 8]
