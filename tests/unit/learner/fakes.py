"""Stand-ins for what a learner works with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sppo.config import RunConfig
from sppo.learner.lineage import Lineage, Saved
from sppo.learner.pulse import Pulse
from sppo.learner.ranks import Solo
from sppo.learner.records import Records
from sppo.learner.refusals import Refusals
from sppo.learner.stops import Stops
from sppo.learner.writer import Writer
from sppo.transport import codec
from sppo.transport.memory import MemoryBroker


class FakeRank:
    """Notes the orders that it is given; its weights are one number."""

    def __init__(self, weight: float = 0.0) -> None:
        self.policy: Any = SimpleNamespace(
            device="cpu", master={"w": torch.zeros(2)}, masters=self._tensors,
            kept=lambda snapshot: self._tensors(),
            weights=lambda snapshot: self._tensors(),
        )  # fmt: skip
        self.optimizer: Any = SimpleNamespace(state=lambda: iter(()))
        self.team = Solo()
        self.writer = Writer()
        self.orders: list[Any] = []
        self.weight = weight

    def do(self, order: Any) -> None:
        self.orders.append(order)

    def stream(self, order: Any) -> Iterator[Any]:
        self.orders.append(order)
        yield from order.apply(self)

    def _tensors(self) -> Iterator[tuple[str, Any]]:
        yield "w", torch.full((2,), self.weight)


def lineage(
    config: RunConfig, folder: Path, rank: Any = None, broker: Any = None, *,
    reference: bool = False,
) -> Lineage:  # fmt: skip
    return Lineage(
        config, rank or FakeRank(), (broker or MemoryBroker()).tickets, folder, reference=reference
    )


def saved(line: Lineage) -> Saved:
    """A checkpoint of what stands, durable."""
    line.save()
    while (found := line.durable(1.0)) is None:
        pass
    return found


def records(config: RunConfig, broker: MemoryBroker, folder: Path) -> Records:
    return Records(config, broker, folder, Pulse(broker.registry))


def stops(broker: MemoryBroker) -> Stops:
    return Stops(broker.registry, Pulse(broker.registry), Refusals(lambda kind, **fields: None))


def events(broker: MemoryBroker, kind: str = "") -> list[dict[str, Any]]:
    """What was told so far."""
    told = [codec.unpack(data) for _, data in broker.mailbox.receive("metrics", "0", 0)]
    return [event for event in told if not kind or event["kind"] == kind]
