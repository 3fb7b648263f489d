"""A weight receiver with a cheap engine on an event loop of its own, and weights to send it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import torch
from torch import Tensor

from sppo.errors import WeightSyncError
from sppo.generators.fake import FakeEngine
from sppo.transport.memory import MemoryBroker
from sppo.types import Member, Version
from sppo.weights.publisher import WeightPublisher
from sppo.weights.receiver import WeightReceiver


class Peer:
    """A generator's weight receiver on an event loop of its own."""

    def __init__(
        self, broker: MemoryBroker, name: str, engine: FakeEngine | None = None, *, life: str = "a",
        timeout_s: float = 5,
    ) -> None:  # fmt: skip
        self.engine = engine or FakeEngine()
        self.receiver = WeightReceiver(broker.mailbox, self.engine, name, phase_timeout_s=timeout_s)
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


def published(publisher: WeightPublisher, n: int, seed: int) -> dict[str, Tensor]:
    sent = weights(seed)
    publisher.publish(Version(epoch="e", n=n), sent.items())
    return sent


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )
