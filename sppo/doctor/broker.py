"""The broker: how fast it answers, whether it keeps what it acknowledged, what its clock says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from sppo.config import BrokerConfig, RunConfig, is_loopback
from sppo.doctor.disk import nearest
from sppo.doctor.findings import Finding, Run, fail, ok, skip, warn
from sppo.transport.health import Health, look
from sppo.transport.server import EmbeddedServer

SLOW_S = 0.05
"""Of a round trip: a group takes some of them."""
CLOCK_S = 1.0


def broker(run: Run) -> list[Finding]:
    """Of `broker.url`, or an embedded one that is started for this, on the disk of the run
    directory, and ended.
    """
    config = run.config.broker
    if config.url:
        health = look(config)
        return [_speed(health), _kept(health), _clock(run.config, health)]
    with tempfile.TemporaryDirectory(dir=nearest(run.folder), prefix=".sppo-doctor-") as folder:
        server = EmbeddedServer(Path(folder), max_bytes=config.max_bytes)
        try:
            health = look(server.start(config))
        finally:
            server.stop()
    kept = ok("persistence", "the embedded broker flushes every change before it answers")
    return [_speed(health), kept, _clock(run.config, health)]


def _speed(health: Health) -> Finding:
    said = (
        f"{health.server}: {health.ping_s * 1e3:.2f} ms for an answer, "
        f"{health.write_s * 1e3:.2f} ms for a write"
    )
    if max(health.ping_s, health.write_s) > SLOW_S:
        return warn("broker", said, "a server that is nearer, or on a faster disk")
    return ok("broker", said)


def _kept(health: Health) -> Finding:
    if health.write_failed:
        words = "its last write to disk did not succeed"
        return fail("persistence", words, "look at its log and at the room on its disk")
    if not health.append_only:
        words = "appendonly is off: a server that dies takes every ticket and group with it"
        return warn("persistence", words, "appendonly yes and appendfsync always (or everysec)")
    if health.fsync == "no":
        words = "appendfsync is no: what was acknowledged in the last seconds may be lost"
        return warn("persistence", words, "appendfsync always, or everysec")
    if not health.fsync:
        return ok("persistence", "appendonly is on; appendfsync is not told to this user")
    lost = ": a second's work is made again" if health.fsync == "everysec" else ""
    return ok("persistence", f"appendonly is on, appendfsync {health.fsync}{lost}")


def _clock(config: RunConfig, health: Health) -> Finding:
    if on_this_machine(config.broker):
        return skip("clock", "the broker is on this machine")
    said = (
        f"the broker's is {abs(health.clock_s):.2f} s {'ahead' if health.clock_s > 0 else 'behind'}"
    )
    if abs(health.clock_s) > CLOCK_S:
        words = f"{said}: times of roles on several machines cannot be compared"
        return warn("clock", words, "chrony or systemd-timesyncd, on both machines")
    return ok("clock", said)


def on_this_machine(config: BrokerConfig) -> bool:
    """Whether the server's clock is ours."""
    at = urlsplit(config.url)
    return at.scheme not in ("redis", "rediss") or is_loopback(at.hostname or "")
