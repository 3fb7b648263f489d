"""Many small groups through a real server by processes that are killed: a learner that keeps only
its ledger, and generators that make up groups. Their use of the broker is the real one
(`GroupQueue`, `Ledger`, `Spool`).
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from pathlib import Path
from typing import Any

from sppo.config import BrokerConfig
from sppo.transport.broker import PushResult
from sppo.transport.redis_broker import connect
from sppo.types import Ticket, Version
from tests import makers

RUN = "soak"
GROUPS_PER_STEP = 8
STEPS_PER_CHECKPOINT = 4
OUTSTANDING = 64


class Tickets:
    """Stands for the TicketFactory: tickets by index."""

    def training(self, index: int, n: int) -> Ticket:
        from sppo.tasks.tickets import training_uid

        return makers.ticket(training_uid(index), min_version=n)


def restored(folder: Path) -> dict[str, Any]:
    path = folder / "state.json"
    if not path.exists():
        return {"ledger": None, "trained": []}
    state: dict[str, Any] = json.loads(path.read_text())
    return state


def _write(path: Path, text: str) -> None:
    scratch = path.with_suffix(".partial")
    with scratch.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def learn(folder: Path, broker: dict[str, Any], total: int) -> None:
    """Until `total` tickets are trained and settled."""
    from sppo.learner.ledger import Ledger
    from sppo.learner.queue import GroupQueue
    from sppo.learner.spool import Spool

    client = connect(BrokerConfig(**broker), RUN, wait=True)
    epoch = uuid.uuid4().hex
    client.tickets.open_epoch(epoch)
    (folder / "epoch").write_text(epoch)
    state = restored(folder)
    ledger = Ledger.restore(state["ledger"]) if state["ledger"] else Ledger()
    trained: list[str] = state["trained"]
    tickets: Any = Tickets()
    queue = GroupQueue(client, tickets, ledger, Spool(folder), limits=BrokerConfig(**broker))
    queue.reconcile(0)
    steps = 0
    while ledger.trained < total:
        queue.admit(min(OUTSTANDING, total - ledger.trained), 0)
        if (batch := queue.batch(GROUPS_PER_STEP)) is None:
            queue.receive(0.2)
            continue
        queue.use(batch)
        trained += [g.uid for g in batch]
        steps += 1
        if steps % STEPS_PER_CHECKPOINT == 0 or ledger.trained >= total:
            client.tickets.confirm_epoch()
            _write(
                folder / "state.json", json.dumps({"ledger": ledger.state(), "trained": trained})
            )
            queue.settle(ledger)
    client.close()


def generate(
    folder: Path, broker: dict[str, Any], name: str, made: Any, slot: int, seconds: float
) -> None:
    """Lease and push until killed; `made[slot]` counts the groups."""
    client = connect(BrokerConfig(**broker), RUN, wait=True)
    rng = random.Random(name)
    while True:
        epoch = (folder / "epoch").read_text() if (folder / "epoch").exists() else "none"
        lease = client.leases.lease(Version(epoch=epoch, n=0))
        if lease is None:
            time.sleep(0.01)
            continue
        time.sleep(seconds * rng.random())
        made[slot] += 1
        group = makers.group(lease.ticket.uid, gid=f"{lease.ticket.uid}.{uuid.uuid4().hex}")
        while client.leases.push(group) is PushResult.FULL:
            time.sleep(0.05)
