"""How a server is doing: how fast it answers, what it keeps on disk, what its clock says."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from sppo.config import BrokerConfig
from sppo.transport.redis_broker import connect

ASKED = 20
RUN = "sppo-doctor"
PROBE_MS = 10_000
"""How long the key stays that is written to time a write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Of one server, as it answers now."""

    server: str
    """Name and version."""
    ping_s: float
    """Median of a round trip."""
    write_s: float
    """Median of a write, with whatever the server flushes before it answers."""
    append_only: bool
    fsync: str
    """`appendfsync`; empty where this user may not ask."""
    write_failed: bool
    """Whether its last write to disk did not succeed."""
    clock_s: float
    """Its clock less ours, half a round trip taken off."""


def look(config: BrokerConfig) -> Health:
    """Ask the server of `broker.url`. Raises ConfigError where it refuses the credentials or may
    drop keys, BrokerError where it does not answer.
    """
    broker = connect(config, RUN)
    try:
        broker.check_memory()
        return broker.ask(_asked)
    finally:
        broker.close()


def _asked(client: Any) -> Health:
    info, kept = client.info("server"), client.info("persistence")
    key = f"sppo:{{{RUN}}}:probe"
    writes = _median(lambda: client.set(key, b"x", px=PROBE_MS))
    client.delete(key)
    return Health(
        server=_name(info),
        ping_s=_median(client.ping),
        write_s=writes,
        append_only=bool(int(kept.get("aof_enabled", 0))),
        fsync=_fsync(client),
        write_failed="err"
        in (kept.get("aof_last_write_status"), kept.get("rdb_last_bgsave_status")),
        clock_s=_clock(client),
    )


def _name(info: Any) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '?')}"


def _median(ask: Callable[[], Any]) -> float:
    taken = []
    for _ in range(ASKED):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _fsync(client: Any) -> str:
    try:
        return str(client.config_get("appendfsync").get("appendfsync", ""))
    except redis.ResponseError:  # not for this user, or not at all where the server is rented
        return ""


def _clock(client: Any) -> float:
    before = time.time()
    seconds, micros = client.time()
    return float(seconds + micros / 1e6 - (before + time.time()) / 2)
