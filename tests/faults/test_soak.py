"""A server, learners and generators that die all the time; a server that loses its newest
writes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from sppo.config import BrokerConfig
from sppo.transport.redis_broker import connect
from sppo.transport.server import EmbeddedServer
from tests.faults import soak
from tests.faults.rig import CONTEXT, LONG

GROUPS = 20_000 if LONG else 1200
SERVER_KILLS = 25 if LONG else 4
OTHER_KILLS = 60 if LONG else 6
GENERATORS = 3


@pytest.mark.timeout(1800 if LONG else 180)
@pytest.mark.parametrize(
    "cut_bytes", [0, 6000], ids=["acknowledged is kept", "the newest writes are lost"]
)
def test_every_ticket_is_trained_once_whoever_dies(cut_bytes: int, tmp_path: Path) -> None:
    rng = random.Random(7)
    server = EmbeddedServer(tmp_path / "broker", max_bytes=64 << 20)
    limits = BrokerConfig(lease_s=2, outage_s=30, max_groups=128)
    operator = server.start(limits)
    made = CONTEXT.Array("l", GENERATORS, lock=False)

    def settings(role: str) -> dict[str, Any]:
        config = server.credentials(operator, role)
        return config.model_dump(mode="json") | {"password": config.password.get_secret_value()}

    def start(name: str) -> Any:
        if name == "learner":
            process = CONTEXT.Process(
                target=soak.learn, args=(tmp_path, settings("learner"), GROUPS), daemon=True
            )
        else:
            slot = int(name[-1])
            arguments = (tmp_path, settings("generator"), name, made, slot, 0.002)
            process = CONTEXT.Process(target=soak.generate, args=arguments, daemon=True)
        process.start()
        return process

    names = ["learner", *(f"generator-{i}" for i in range(GENERATORS))]
    processes = {name: start(name) for name in names}
    victims = ["server"] * SERVER_KILLS + [rng.choice(names) for _ in range(OTHER_KILLS)]
    rng.shuffle(victims)
    # Spread over the run: one death each time that so many more groups were trained
    marks = [GROUPS * (i + 1) // (len(victims) + 1) for i in range(len(victims))]
    deaths = 0
    longest_s = 0.0
    moved = time.monotonic()
    count = 0
    while processes["learner"].exitcode != 0:
        for name, process in processes.items():
            if process.exitcode is not None:
                assert process.exitcode == -signal.SIGKILL, f"{name} ended with {process.exitcode}"
                processes[name] = start(name)
        trained = len(soak.restored(tmp_path)["trained"])
        if trained > count:
            longest_s = max(longest_s, time.monotonic() - moved)
            count, moved = trained, time.monotonic()
        if deaths < len(victims) and trained >= marks[deaths]:
            victim = victims[deaths]
            deaths += 1
            if victim == "server":
                assert server.pid is not None
                os.kill(server.pid, signal.SIGKILL)
                if cut_bytes:
                    _cut_log(tmp_path / "broker", rng.randrange(1, cut_bytes))
                server.restart()
            else:
                processes[victim].kill()
                processes[victim].join()
        assert time.monotonic() - moved < 30, f"nothing was trained for 30 s after {count} groups"
        time.sleep(0.02)
    for process in processes.values():
        process.kill()
        process.join()

    trained_uids = soak.restored(tmp_path)["trained"]
    assert len(trained_uids) == len(set(trained_uids)) == GROUPS
    assert deaths == len(victims)
    broker = connect(operator, soak.RUN)
    assert broker.leftovers() == []
    assert broker.tickets.dead_letters() == []
    waste = sum(made) / GROUPS - 1
    print(
        f"{GROUPS} groups, {deaths} deaths, {waste:.1%} made again, longest stall {longest_s:.1f} s"
    )
    if not cut_bytes and LONG:
        assert waste <= 0.02
    broker.close()
    server.stop()


def _cut_log(folder: Path, count: int) -> None:
    """What a server with `appendfsync everysec` loses with its machine: the end of its log, amid a
    write.
    """
    (log,) = folder.glob("appendonlydir/*.incr.aof")
    with log.open("r+b") as file:
        file.truncate(max(0, log.stat().st_size - count))
