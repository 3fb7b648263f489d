"""Full disks, full memory, a learner that stands still, signals."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from sppo.config import BrokerConfig
from sppo.errors import SppoError
from sppo.learner import checkpoint
from sppo.transport.broker import PushResult
from sppo.transport.client import make_client
from sppo.transport.redis_broker import connect
from sppo.transport.server import EmbeddedServer
from sppo.types import Version
from tests import checkpoints, makers
from tests.faults.rig import CONTEXT, Rig

V = Version(epoch="a", n=0)


def save(root: Path, step: int, size: int) -> None:
    weight = torch.full((size,), float(step))
    checkpoints.save(root, step, epoch="a" * 8, model=[("w", weight)])


def save_on_a_full_disk(root: Path, report: Path) -> None:
    """No file of this process may grow beyond 64 KiB from here on: writes fail as they do on a full
    disk.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    try:
        save(root, 2, 1 << 20)
    except SppoError as error:
        report.write_text(str(error))


def test_a_full_disk_leaves_the_previous_checkpoint_and_says_what_to_do(tmp_path: Path) -> None:
    root, report = tmp_path / "checkpoints", tmp_path / "report"
    save(root, 1, 1 << 20)
    process = CONTEXT.Process(target=save_on_a_full_disk, args=(root, report))
    process.start()
    process.join()
    assert "free some disk space" in report.read_text()
    assert "step 2" in report.read_text()
    assert [p.name for p in root.iterdir()] == ["step-000001-aaaaaaaa"]
    found = checkpoint.newest(root)
    assert found is not None
    assert float(checkpoints.load(found.folder)["w"][-1]) == 1.0
    save(root, 2, 1 << 20)  # room again
    assert checkpoint.newest(root).step == 2  # type: ignore[union-attr]


def test_a_broker_whose_disk_is_full_dies_loudly_and_keeps_what_it_acknowledged(
    tmp_path: Path,
) -> None:
    server = EmbeddedServer(tmp_path / "broker", max_bytes=64 << 20)
    broker = connect(server.start(BrokerConfig(outage_s=20)), "run")
    broker.tickets.open_epoch("a")
    uids = [f"train-{i:09d}" for i in range(30)]
    broker.tickets.issue([makers.ticket(uid) for uid in uids])
    process = psutil.Process(server.pid)
    process.rlimit(psutil.RLIMIT_FSIZE, (4 << 20, 4 << 20))
    results: dict[str, PushResult] = {}

    def push() -> None:
        for _ in uids:
            lease = broker.leases.lease(V)
            assert lease is not None
            results[lease.ticket.uid] = broker.leases.push(
                makers.big_group(lease.ticket.uid, nbytes=1 << 20)
            )

    pushing = threading.Thread(target=push)
    pushing.start()
    process.wait(10)  # it cannot write its log: it stops rather than forget what it answered
    acknowledged = [uid for uid, r in results.items() if r is PushResult.OK]
    assert 1 <= len(acknowledged) < 30
    assert not server.answers()
    server.restart()  # with room again; the pushes in flight have waited
    pushing.join(30)
    assert not pushing.is_alive()
    assert all(r in (PushResult.OK, PushResult.DUPLICATE) for r in results.values())
    entries = broker.tickets.claim(100, 1)
    assert sorted(e.uid for e in entries) == uids
    assert all(broker.tickets.fetch(e) is not None for e in entries)
    broker.tickets.settle(entries)
    assert broker.leftovers() == []
    server.stop()


def test_generators_of_a_learner_that_stands_still_are_held_back_within_the_memory_cap(
    tmp_path: Path,
) -> None:
    cap = 24 << 20
    server = EmbeddedServer(tmp_path / "broker", max_bytes=cap)
    config = server.start(BrokerConfig(max_bytes=cap))
    broker = connect(config, "run")
    broker.tickets.open_epoch("a")
    uids = [f"train-{i:09d}" for i in range(60)]
    broker.tickets.issue([makers.ticket(uid) for uid in uids])
    client = make_client(config)
    before = int(client.info("memory")["used_memory"])
    waiting = []
    for uid in uids:
        broker.leases.lease(V)
        if broker.leases.push(makers.big_group(uid, nbytes=1 << 20)) is PushResult.FULL:
            waiting.append(uid)
    for _ in range(3):  # they try again and again
        assert all(
            broker.leases.push(makers.big_group(uid, nbytes=1 << 20)) is PushResult.FULL
            for uid in waiting[:5]
        )
    used = int(client.info("memory")["used_memory"]) - before
    assert used <= 1.1 * cap
    kept = broker.tickets.claim(100, 1)
    assert len(kept) + len(waiting) == 60
    broker.tickets.settle(kept)
    assert broker.leases.push(makers.big_group(waiting[0], nbytes=1 << 20)) is PushResult.OK
    broker.tickets.settle(broker.tickets.claim(100, 1))
    assert broker.leftovers() == [f"open tickets {len(waiting) - 1}"]
    client.close()
    server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_learner_saves_a_checkpoint_and_the_next_life_goes_on(
    number: signal.Signals, model: str, tmp_path: Path
) -> None:
    with Rig(tmp_path, model, options={"token_s": 0.05}, steps=12, checkpoint_every=12) as rig:
        for name in ("scorer-0", "generator-0", "learner-0"):
            rig.start(name)
        deadline = time.monotonic() + 30
        metrics = rig.run_dir / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
            assert time.monotonic() < deadline, rig.logs()
            time.sleep(0.02)
        os.kill(rig.pid("learner-0"), number)
        while rig.step():
            assert time.monotonic() < deadline, rig.logs()
            time.sleep(0.02)
        found = checkpoint.newest(rig.run_dir / "checkpoints")
        assert found is not None
        assert 3 <= found.step < 12
        rig.start("learner-0")
        while rig.step():
            assert time.monotonic() < deadline + 30, rig.logs()
            time.sleep(0.02)
        audit = rig.audit()
        assert (audit.trained, audit.twice, audit.lost, audit.leftovers) == (24, [], [], [])
