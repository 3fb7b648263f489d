"""A generator as far as weight syncs go: the real receiver and heartbeat, an engine that keeps what
it is sent.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from sppo.config import BrokerConfig
from sppo.generators.fake import FakeEngine
from sppo.transport.redis_broker import connect
from sppo.types import Member, Version
from sppo.weights.receiver import WeightReceiver

RUN = "sync"


def checksum(weights: dict[str, Tensor]) -> str:
    """Of every weight's bytes."""
    whole = xxhash.xxh3_64()
    for name in sorted(weights):
        whole.update(name.encode())
        whole.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


class _Engine(FakeEngine):
    def __init__(self, report: Path) -> None:
        super().__init__()
        self._report = report

    async def load_weights(self, update: dict[str, Any], version: Version, *moved: Any) -> None:
        await super().load_weights(update, version, *moved)
        self._report.write_text(
            json.dumps({"version": str(version), "checksum": checksum(self.weights)})
        )


def main(
    name: str, broker: dict[str, Any], folder: str, crash: str, phase_timeout_s: float
) -> None:
    """Follow weight syncs until killed."""
    from sppo import faults

    faults.arm(crash)
    client = connect(BrokerConfig(**broker), RUN, wait=True)
    life, started = secrets.token_hex(4), time.monotonic()

    async def beat(receiver: WeightReceiver) -> None:
        while True:
            applied = str(receiver.applied or "")
            member = Member(
                name=name,
                role="generator",
                life=life,
                applied=applied,
                ready_s=time.monotonic() - started + 0.001,
            )
            await asyncio.to_thread(client.registry.heartbeat, member, 3.0)
            await asyncio.sleep(0.2)

    async def follow() -> None:
        engine = _Engine(Path(folder) / f"{name}.json")
        await engine.start()
        receiver = WeightReceiver(client.mailbox, engine, name, phase_timeout_s=phase_timeout_s)
        await asyncio.gather(beat(receiver), receiver.run())

    asyncio.run(follow())
