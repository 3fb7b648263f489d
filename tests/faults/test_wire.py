"""Connections that lose replies, stall, close half-way or trickle: each write counts once. Zombies
are fenced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sppo.chaos.proxy import Mode, Proxy
from sppo.config import BrokerConfig
from sppo.errors import FencedError
from sppo.learner import checkpoint
from sppo.transport.broker import PushResult
from sppo.transport.client import Connection
from sppo.transport.redis_broker import RedisBroker, connect
from sppo.transport.server import EmbeddedServer
from sppo.types import Version
from tests import checkpoints, makers
from tests.faults.rig import LONG

V = Version(epoch="a", n=0)
PARTITION_S = 60 if LONG else 1


class Wire:
    """A broker reached through a proxy, and the same run seen directly."""

    def __init__(self, folder: Path) -> None:
        self.server = EmbeddedServer(folder / "broker", max_bytes=64 << 20)
        self.straight = self.server.start(BrokerConfig(lease_s=0.5, outage_s=90))
        target = Path(self.straight.url.removeprefix("unix://"))
        self.proxy = Proxy(listen=target.with_name("proxy.sock"), server=target)
        self.proxy.start()
        self.direct = connect(self.straight, "wire")
        self.config = self.straight.model_copy(
            update={"url": f"unix://{target.with_name('proxy.sock')}"}
        )
        self.broker = self.client()

    def failures(self, uid: str) -> int:
        server = Connection(self.straight, "wire")
        try:
            return int(server.client.hget(server.key("failures"), uid))
        finally:
            server.close()

    def client(self) -> RedisBroker:
        return connect(self.config, "wire")

    def close(self) -> None:
        self.proxy.stop()
        self.direct.close()
        self.server.stop()


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    made = Wire(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("mode", ["drop_reply", "half_close", "delay", "trickle", "cut", "silence"])
def test_each_write_counts_once_however_the_connection_fails(mode: Mode, wire: Wire) -> None:
    broker = wire.broker

    def hurt(call: Callable[[], Any]) -> Any:
        wire.proxy.mode = mode
        if mode == "cut":
            wire.proxy.cut()
        if mode in ("cut", "silence"):  # these last until they are healed
            threading.Timer(0.4, lambda: setattr(wire.proxy, "mode", "pass")).start()
        result = call()
        wire.proxy.mode = "pass"
        return result

    tickets = [makers.ticket(f"train-{i:09d}") for i in range(4)]
    hurt(lambda: broker.tickets.open_epoch("a"))
    hurt(lambda: broker.tickets.issue(tickets))
    assert wire.direct.depths()["todo"] == 4
    first = hurt(lambda: broker.leases.lease(V))
    assert (
        first is not None
    )  # asked again after a lost reply: perhaps another ticket; the first one's lease runs out
    group = makers.big_group(first.ticket.uid, nbytes=200_000)
    assert hurt(lambda: broker.leases.push(group)) in (PushResult.OK, PushResult.DUPLICATE)
    assert wire.direct.depths()["queued"] == 1
    (entry,) = hurt(lambda: broker.tickets.claim(5, 1)) or broker.tickets.pending()
    assert (
        wire.direct.depths()["bytes"]
        == entry.nbytes
        == len(hurt(lambda: broker.tickets.fetch(entry)))
    )
    hurt(lambda: broker.leases.fail("train-000000003", "train", "g.1", "refused"))
    assert wire.failures("train-000000003") == 1
    hurt(lambda: broker.tickets.settle([entry]))
    hurt(lambda: broker.tickets.withdraw([t.uid for t in tickets]))
    assert {k: v for k, v in wire.direct.depths().items() if k != "leased"} == dict.fromkeys(
        ("todo", "eval", "queued", "dead", "bytes"), 0
    )
    assert wire.direct.leftovers() == []


@pytest.mark.timeout(PARTITION_S + 100)
def test_a_learner_behind_a_partition_is_fenced_when_it_comes_back(
    wire: Wire, tmp_path: Path
) -> None:
    zombie, successor = wire.broker, wire.direct
    zombie.tickets.open_epoch("a")
    zombie.tickets.issue([makers.ticket()])
    zombie.leases.lease(V)
    zombie.leases.push(makers.group())
    entries = zombie.tickets.claim(1, 1)
    wire.proxy.mode = "silence"
    successor.tickets.open_epoch("b")
    assert successor.tickets.pending() == entries
    successor.tickets.settle(entries)
    late: list[str] = []

    def save() -> None:
        try:
            checkpoints.save(
                tmp_path / "checkpoints", 5, epoch="a" * 8, model=[("w", torch.zeros(2))],
                confirm=zombie.tickets.confirm_epoch,
            )  # fmt: skip
        except FencedError as error:
            late.append(str(error))

    saving = threading.Thread(target=save)
    saving.start()
    saving.join(PARTITION_S)
    assert saving.is_alive()  # it waits for the broker before its checkpoint becomes visible
    wire.proxy.mode = "pass"
    saving.join(40)
    assert late
    assert "another learner" in late[0]
    assert checkpoint.newest(tmp_path / "checkpoints") is None
    for act in (
        lambda: zombie.tickets.settle(entries),
        lambda: zombie.tickets.issue([makers.ticket()]),
    ):
        with pytest.raises(FencedError):
            act()
    assert wire.direct.depths()["bytes"] == 0
