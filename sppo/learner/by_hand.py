"""Ranks that are started by hand meet at an address, in a store that rank 0 keeps.

There they show each other where they are (`sppo.learner.signs`). Whoever misses another names it,
and ends itself; a rank without rank 0 does too.
"""

from __future__ import annotations

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
from sppo.learner import signs
from sppo.learner.children import DEATH_NOTICE_S
from sppo.learner.place import Place
from sppo.learner.ranks import JOIN_S, Team
from sppo.learner.signs import Found, Signs
from sppo.learner.where import Where
from sppo.weights import lookups

log = logging.getLogger(__name__)

# torch.distributed is not fully typed.
_dist: Any = torch.distributed


def meet(place: Place, device: str, deadline_s: float) -> Team:
    """Be this rank. Raises RoleDiedError if another does not come in time, and names it. Later one
    that does not get on is named after `deadline_s`.
    """
    store, where = open_store(place), Where()
    told = store.clone()
    told.set_timeout(timedelta(seconds=signs.SILENT_S))  # rank 0 may be there and stand still
    own = Signs(told, where, rank=place.rank, size=place.size, deadline_s=deadline_s)
    team = Team(
        place.rank, place.size, store, device, local=place.local, here=False,
        network=interface(place), company=Apart(own), machine=place.machine, where=where,
    )  # fmt: skip
    log.info("rank %d of %d on %s", place.rank, place.size, socket.gethostname())
    return team


def open_store(place: Place) -> Any:
    """Where the ranks meet; rank 0 keeps it."""
    lookups.leave_out()
    try:
        return _dist.TCPStore(
            place.address, place.port, None, is_master=place.rank == 0,
            timeout=timedelta(seconds=JOIN_S), wait_for_workers=False, **_listening(place),
        )  # fmt: skip
    except (OSError, RuntimeError) as error:
        what = "cannot listen" if place.rank == 0 else f"has not come within {JOIN_S:.0f} s"
        reason = str(error).splitlines()[0]
        raise RoleDiedError(
            f"rank 0 of the learner {what} at {place.address}:{place.port} (MASTER_ADDR, "
            f"MASTER_PORT), says rank {place.rank} on {socket.gethostname()}: {reason}"
        ) from error


def _listening(place: Place) -> dict[str, int]:
    """A socket at rank 0's address, where that is one of this machine's; torch by itself listens on
    every interface. Raises OSError.
    """
    own = {a.address for found in psutil.net_if_addrs().values() for a in found}
    loopback = place.address.startswith("127.")
    if place.rank or not (loopback or place.address in own):
        return {}
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    listener = socket.create_server((place.address, place.port), family=family)
    return {"master_listen_fd": listener.detach()}


def interface(place: Place) -> str:
    """The network interface from which this machine reaches rank 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((place.address, place.port))  # sends nothing
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if own in [each.address for each in addresses]:
            return name
    return next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))


class Apart:
    """The other ranks, known by their signs. Stands where `Children` stands for ranks that rank 0
    has started.
    """

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self._known = threading.Event()
        self._over = False
        signs.start(self._lost, self._alone)

    def ended(self) -> str:
        """Which ranks do not come, and where they were; empty if none is known."""
        return ", ".join(self._signs.found().values())

    def lost(self) -> str:
        """The same, after the time in which silence shows."""
        deadline = time.monotonic() + signs.SILENT_S + 2 * signs.SIGN_S
        while not (found := self.ended()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def expect_the_end(self) -> bool:
        """From here on they may end. False if that was said before."""
        before, self._over = self._over, True
        self._signs.end()
        self._known.set()
        return not before

    def noticed(self) -> None:
        """Whoever waits for them knows that this life ends: it is not ended for one that died."""
        self._known.set()

    def end(self, grace_s: float = 0.0) -> None:
        """They end by themselves, without rank 0."""

    def _lost(self, found: Found) -> None:
        self._give_up(f"{', '.join(found.values())}; the learner cannot go on without it")

    def _alone(self, reason: str) -> None:
        self._give_up(f"rank 0 of the learner is gone: {reason}")

    def _give_up(self, why: str) -> None:
        log.error("%s", why)
        if not self._known.wait(DEATH_NOTICE_S):
            os._exit(RoleDiedError.exit_code)
