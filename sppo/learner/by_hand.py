"""Ranks that are started by hand meet at an address, and show each other that they live.

Each writes a sign of life into the store that rank 0 keeps; rank 0 names those that stopped. A rank
without rank 0 ends by itself.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from datetime import timedelta
from typing import Any

import psutil
import torch.distributed

from sppo.errors import RoleDiedError
from sppo.learner.children import DEATH_NOTICE_S
from sppo.learner.place import Place
from sppo.learner.ranks import JOIN_S, Team

log = logging.getLogger(__name__)

SIGN_S = 2.0
"""Between two signs of life."""
SILENT_S = 30.0
"""Without one a rank is gone."""

# torch.distributed is not fully typed.
_dist: Any = torch.distributed


def meet(place: Place, device: str) -> Team:
    """Be this rank. Raises RoleDiedError if another does not come in time, and names it."""
    store = open_store(place)
    team = Team(
        place.rank, place.size, store, device, local=place.local, here=False,
        network=interface(place), company=Signs(store, place), machine=place.machine,
    )  # fmt: skip
    log.info("rank %d of %d on %s", place.rank, place.size, socket.gethostname())
    return team


def open_store(place: Place) -> Any:
    """Where the ranks meet; rank 0 keeps it."""
    try:
        return _dist.TCPStore(
            place.address, place.port, None, is_master=place.rank == 0,
            timeout=timedelta(seconds=JOIN_S), wait_for_workers=False,
        )  # fmt: skip
    except RuntimeError as error:
        what = "cannot listen" if place.rank == 0 else f"has not come within {JOIN_S:.0f} s"
        reason = str(error).splitlines()[0]
        raise RoleDiedError(
            f"rank 0 of the learner {what} at {place.address}:{place.port} (MASTER_ADDR, "
            f"MASTER_PORT), says rank {place.rank} on {socket.gethostname()}: {reason}"
        ) from error


def interface(place: Place) -> str:
    """The network interface from which this machine reaches rank 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((place.address, place.port))  # sends nothing
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if own in [each.address for each in addresses]:
            return name
    return next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))


class Signs:
    """Signs of life of all ranks; of this one by a thread. Stands where `Children` stands for
    ranks that rank 0 has started.
    """

    def __init__(self, store: Any, place: Place) -> None:
        self._store = store.clone()
        self._rank, self._size = place.rank, place.size
        self._over = threading.Event()
        self._known = threading.Event()
        self._seen: dict[int, tuple[bytes, float]] = {}
        threading.Thread(target=self._run, daemon=True, name="signs").start()

    def ended(self) -> str:
        """Which ranks have stopped to give signs, and where they were; empty if none has."""
        now = time.monotonic()
        return ", ".join(
            f"rank {rank} of the learner, on {self._host(rank)}, has given no sign of life for "
            f"{now - at:.0f} s"
            for rank, (_, at) in sorted(self._seen.items())
            if now - at > SILENT_S
        )

    def lost(self) -> str:
        """The same, after the time in which silence shows."""
        deadline = time.monotonic() + SILENT_S + 2 * SIGN_S
        while not (found := self.ended()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def expect_the_end(self) -> bool:
        """From here on they may end. False if that was said before."""
        before = self._over.is_set()
        self._over.set()
        self._known.set()
        return not before

    def noticed(self) -> None:
        """Whoever waits for them knows that this life ends: it is not ended for one that died."""
        self._known.set()

    def end(self, grace_s: float = 0.0) -> None:
        """They end by themselves, without rank 0."""

    def _host(self, rank: int) -> str:
        name: str = json.loads(self._store.get(f"joined/{rank}"))["host"]
        return name

    def _run(self) -> None:
        count = 0
        while not self._over.is_set():
            count += 1
            try:
                self._store.set(f"sign/{self._rank}", str(count))
                if self._rank == 0:
                    self._look()
            except RuntimeError as error:  # the store went with rank 0
                log.error("rank 0 of the learner is gone: %s", str(error).splitlines()[0])
                if not self._over.wait(DEATH_NOTICE_S):
                    os._exit(RoleDiedError.exit_code)
                return
            if dead := self.ended():
                log.error("%s; the learner cannot go on without it", dead)
                if not self._known.wait(DEATH_NOTICE_S):
                    os._exit(RoleDiedError.exit_code)
                return
            self._over.wait(SIGN_S)

    def _look(self) -> None:
        for rank in range(1, self._size):
            key = f"sign/{rank}"
            sign = self._store.get(key) if self._store.check([key]) else b""
            if sign and (rank not in self._seen or self._seen[rank][0] != sign):
                self._seen[rank] = (sign, time.monotonic())
