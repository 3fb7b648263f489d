"""Buckets and checksums of the transport."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from sppo.errors import WeightSyncError
from sppo.transport.memory import MemoryBroker
from sppo.weights import gloo
from sppo.weights.gloo import GlooSender
from sppo.weights.publisher import WeightPublisher
from tests.unit.weights.peers import Peer, published, same


def test_bytes_that_are_not_those_staged_are_refused(broker: MemoryBroker) -> None:
    class Corrupting(GlooSender):
        times = 100

        def transfer(self, *, meet: bool, **more: Callable[[], None]) -> Callable[[], None]:
            wrong, collective = int(self.times > 0), super().transfer(meet=meet, **more)
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


def test_weights_are_staged_bucket_by_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo, "BUCKET_BYTES", 64)
    alive, most = weakref.WeakSet[Tensor](), 0

    def weights() -> Iterator[tuple[str, Tensor]]:
        nonlocal most
        for i in range(40):  # of 32 bytes: two fill a bucket
            made = torch.full((8,), float(i))
            alive.add(made)
            yield f"w{i}", made
            del made
            most = max(most, len(alive))

    sender = GlooSender("127.0.0.1")
    update = sender.stage(weights())
    assert most <= 4
    first = [flat.data_ptr() for flat in sender._staged]
    assert len(first) == 20
    assert sender.stage((f"w{i}", torch.full((8,), float(i))) for i in range(40)) == update
    assert [flat.data_ptr() for flat in sender._staged] == first
