"""Weight syncs through shared memory, between real senders and receivers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.errors import TransferAborted
from sppo.generators.fake import FakeEngine
from sppo.transport.memory import MemoryBroker
from sppo.types import Version
from sppo.weights import segments, shared
from sppo.weights.buckets import Bucket
from sppo.weights.gloo import GlooGroup
from sppo.weights.publisher import WeightPublisher
from sppo.weights.segments import NotShared
from sppo.weights.shared import SharedReceiver, SharedSender
from tests.unit.weights.peers import Peer, published, same, weights

CPU = torch.device("cpu")
BUCKET = 16 << 10


def engine() -> FakeEngine:
    return FakeEngine(receiver=SharedReceiver(CPU))


@pytest.fixture
def sender() -> SharedSender:
    return SharedSender("127.0.0.1", "cpu", bucket_bytes=BUCKET)


@pytest.fixture
def publisher(broker: MemoryBroker, sender: SharedSender) -> Iterator[WeightPublisher]:
    made = WeightPublisher(broker.registry, broker.mailbox, sender, phase_timeout_s=2)
    yield made
    made.close()


@pytest.fixture
def sent_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what is broadcast."""
    sizes: list[int] = []
    broadcast = GlooGroup.broadcast

    def counted(group: GlooGroup, flat: Tensor) -> None:
        sizes.append(flat.numel())
        broadcast(group, flat)

    monkeypatch.setattr(GlooGroup, "broadcast", counted)
    return sizes


def test_every_rank_has_the_bits_and_none_are_sent(
    broker: MemoryBroker, publisher: WeightPublisher, sent_bytes: list[int]
) -> None:
    peers = [Peer(broker, "generator-0", engine())]
    for n in range(3):  # "embed" is larger than a bucket, and the slots are used again
        if n == 2:
            peers.append(Peer(broker, "generator-1", engine()))
        sent = published(publisher, n, seed=n)
        for peer in peers:
            assert same(peer.engine.weights, sent)
    assert set(sent_bytes) == {1}
    for peer in peers:
        peer.stop()


def test_where_one_cannot_open_the_memory_all_are_sent_it_and_the_reason_is_said_once(
    broker: MemoryBroker, publisher: WeightPublisher, sent_bytes: list[int],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    attach, asked = segments.attach, list[int]()

    def second_cannot(handle: dict[str, Any], device: torch.device) -> Tensor:
        asked.append(1)
        if len(asked) % 3 == 0:  # two slots for the first, then the second's first
            raise NotShared("the learner is on\nthe GPU A, the engine on B")
        return attach(handle, device)

    monkeypatch.setattr(segments, "attach", second_cannot)
    peers = [Peer(broker, f"generator-{i}", engine()) for i in range(2)]
    for n in range(2):
        sent = published(publisher, n, seed=n)
        for peer in peers:
            assert same(peer.engine.weights, sent)
    peers.pop().stop()
    broker.registry.leave("generator-1")
    assert max(sent_bytes) == BUCKET
    reasons = [r.message for r in caplog.records if "weights go over gloo" in r.message]
    assert len(reasons) == 1
    assert r"the learner is on\nthe GPU A, the engine on B" in reasons[0]
    # Without that one the others have the memory again
    sent_bytes.clear()
    monkeypatch.setattr(segments, "attach", attach)
    assert same(published(publisher, 2, seed=2), peers[0].engine.weights)
    assert set(sent_bytes) == {1}
    peers[0].stop()


def test_a_learner_that_has_no_such_memory_sends(
    broker: MemoryBroker, publisher: WeightPublisher, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.delattr(os, "memfd_create")
    peer = Peer(broker, "generator-0", engine())
    assert same(published(publisher, 0, seed=0), peer.engine.weights)
    assert "not through shared memory: the learner: this system has no memory files" in caplog.text
    peer.stop()


def test_bytes_that_are_not_those_staged_are_not_loaded(
    broker: MemoryBroker, publisher: WeightPublisher, sender: SharedSender,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Given a learner that writes into a slot once while others read it
    fill, wrong = SharedSender._fill, [1]

    def too_early(self: SharedSender, i: int, piece: Tensor) -> None:
        fill(self, i, piece)
        if wrong:
            self._slots[i % shared.SLOTS][8] ^= wrong.pop()

    monkeypatch.setattr(SharedSender, "_fill", too_early)
    peer = Peer(broker, "generator-0", engine())
    # Then that transfer is refused, and the next one is good
    sent = weights(0)
    report = publisher.publish(Version(epoch="e", n=0), sent.items(), while_alone=lambda: None)
    assert "checksum mismatch in the bucket of embed" in report.failures[0]
    assert same(peer.engine.weights, sent)
    peer.stop()


def test_a_bucket_is_kept_by_nobody_once_it_is_loaded(
    broker: MemoryBroker, publisher: WeightPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, taken, left = SharedReceiver._take, list[weakref.ref[Tensor]](), list[bool]()

    def noted(self: SharedReceiver, bucket: Bucket) -> Tensor:
        flat = take(self, bucket)
        taken.append(weakref.ref(flat))
        return flat

    class Loading(FakeEngine):
        async def load_weights(
            self, update: dict[str, Any], version: Version, moved: Callable[[], None] = print
        ) -> None:
            arriving = self._receiver.each(**update)
            while await asyncio.to_thread(next, arriving, None):
                left.append(taken[-1]() is not None)

    monkeypatch.setattr(SharedReceiver, "_take", noted)
    peer = Peer(broker, "generator-0", Loading(receiver=SharedReceiver(CPU)))
    published(publisher, 0, seed=0)
    assert len(left) > 1
    assert not any(left)
    peer.stop()


class Leaves(FakeEngine):
    """An engine that goes when the first bucket is here, once."""

    leaves = True

    async def load_weights(
        self, update: dict[str, Any], version: Version, moved: Callable[[], None] = print
    ) -> None:
        if self.leaves:
            self.leaves = False
            next(self._receiver.each(**update))
            self._receiver.close()
            raise TransferAborted("transfer aborted: pulled the plug")
        await super().load_weights(update, version, moved)


def test_a_receiver_that_dies_in_between_costs_nobody_the_weights(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    peers = [
        Peer(broker, "generator-0", engine()),
        Peer(broker, "generator-1", Leaves(receiver=SharedReceiver(CPU))),
    ]
    sent = weights(0)
    started = time.monotonic()
    report = publisher.publish(Version(epoch="e", n=0), sent.items(), while_alone=lambda: None)
    assert "pulled the plug" in report.failures[0]
    assert time.monotonic() - started < 2
    for peer in peers:
        assert same(peer.engine.weights, sent)
        assert peer.error is None
        peer.stop()


def learner(pipe: Connection) -> None:
    """Shows two buckets, and hangs in the third."""
    torch.set_num_threads(1)
    sender = SharedSender("127.0.0.1", "cpu", bucket_bytes=1024)
    update = sender.stage((f"w{i}", torch.full((256,), float(i))) for i in range(5))
    pipe.send((update, sender.open(2, 5.0)))
    fill = sender._fill

    def hangs(i: int, piece: Tensor) -> None:
        fill(i, piece)
        if i == 2:
            time.sleep(60)

    sender._fill = hangs  # type: ignore[method-assign]
    sender.transfer(meet=True)()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory is not in files here")
def test_a_learner_that_is_killed_in_between_leaves_nothing() -> None:
    before = set(os.listdir("/dev/shm"))
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=learner, args=(theirs,))
    process.start()
    update, join = ours.recv()
    receiver = SharedReceiver(CPU)
    receiver.join(rank=1, **join)
    arriving = receiver.each(**update)
    ((name, first),) = next(arriving)
    assert (name, first.tolist()) == ("w0", [0.0] * 256)
    handle = join["slots"][0]
    assert process.pid == handle["pid"]
    killing = threading.Timer(0.05, os.kill, (process.pid, signal.SIGKILL))
    killing.start()
    with pytest.raises(TransferAborted):
        for _ in arriving:
            pass
    process.join()
    # What it had shown is not looked at any more, and nobody has the memory
    assert receiver._slots == []
    with pytest.raises(NotShared):
        segments.attach(handle, CPU)
    assert set(os.listdir("/dev/shm")) <= before


def test_a_receiver_that_joined_nothing_says_so() -> None:
    async def loads() -> None:
        await engine().load_weights(
            {"names": ["w"], "dtype_names": ["float32"], "shapes": [[2]], "sums": [0]},
            Version(epoch="e", n=0),
        )

    with pytest.raises(TransferAborted, match="before this engine joined a group"):
        asyncio.run(loads())
