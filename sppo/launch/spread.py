"""A learner whose ranks are on several machines, each machine's part an actor of Ray.

The first part is rank 0, which is the learner, and starts the other ranks of its machine; every
other part starts all ranks of its own. They meet as ranks that are started by hand do
(`sppo.learner.by_hand`), told where by the variables of torchrun.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sppo import config as settings
from sppo.config import RunConfig
from sppo.errors import RoleDiedError
from sppo.launch import reach
from sppo.learner import place
from sppo.learner.place import Place

log = logging.getLogger(__name__)

LEAVE_S = 20.0
POLL_S = 0.2

Meeting = tuple[str, int]
"""Address and port at which rank 0 is met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One machine's share of the ranks."""

    number: int
    of: int

    def name(self, role: str) -> str:
        """Of its process, its log and its pid file: `learner-0`, then `learner-0.1` and so on."""
        return f"{role}.{self.number}" if self.number else role

    def variables(self, ranks: int, meeting: Meeting) -> list[dict[str, str]]:
        """torchrun's, for each rank of this machine."""
        here = ranks // self.of
        return [
            {
                "RANK": str(self.number * here + local), "WORLD_SIZE": str(ranks),
                "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(here),
                "MASTER_ADDR": meeting[0], "MASTER_PORT": str(meeting[1]),
            }
            for local in range(here)
        ]  # fmt: skip


def meeting(config: RunConfig) -> Meeting:
    """Where this machine's rank 0 will listen: at `weights.host`, at a port that is free now."""
    host = reach.addressed(config).weights.host
    with socket.create_server((host, 0)) as free:
        return host, int(free.getsockname()[1])


def run(
    config: RunConfig, part: Part, at: Meeting, learn: Callable[[Place | None], dict[str, Any]]
) -> dict[str, Any]:
    """Be this machine's part; `learn` is rank 0's work, whose outcome is returned. Raises
    RoleDiedError for a rank that ended otherwise.
    """
    each = part.variables(config.learner.ranks, at)
    if part.number:
        with _started(config, each) as ranks:
            _wait(ranks)
        return {}
    with _started(config, each[1:]) as ranks:
        outcome = learn(place.find(config, each[0]))
        _wait(ranks, LEAVE_S)
        return outcome


@contextmanager
def _started(
    config: RunConfig, each: list[dict[str, str]]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Ranks as processes of this one, by number, which end with it."""
    password = {"password": config.broker.password.get_secret_value()}
    given = {
        "config": settings.to_json(config),
        "broker": config.broker.model_dump(mode="json") | password,
        "parent": os.getpid(),
    }
    ranks: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for variables in each:
            process = subprocess.Popen(
                [sys.executable, "-m", "sppo.learner.follower", "--placed"],
                stdin=subprocess.PIPE, env=os.environ | variables,
            )  # fmt: skip
            ranks[variables["RANK"]] = process
            assert process.stdin is not None
            process.stdin.write(json.dumps(given).encode())
            process.stdin.close()
        yield ranks
    finally:
        for process in ranks.values():
            process.kill()
            process.wait()


def _wait(ranks: dict[str, subprocess.Popen[bytes]], limit_s: float = float("inf")) -> None:
    """Until all have ended, or so long. Raises RoleDiedError for one that ended with an error."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        codes = {rank: process.poll() for rank, process in ranks.items()}
        for rank, code in codes.items():
            if code:
                raise RoleDiedError(
                    f"rank {rank} of the learner, on {socket.gethostname()}, ended with {code}"
                )
        if None not in codes.values():
            return
        time.sleep(POLL_S)
