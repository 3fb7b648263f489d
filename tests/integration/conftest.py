"""Real brokers: the embedded server, and a plain Debian redis-server."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sppo.config import BrokerConfig
from sppo.errors import BrokerError
from sppo.transport.redis_broker import connect
from sppo.transport.server import EmbeddedServer


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerConfig]:
    """Settings of a running embedded server."""
    server = EmbeddedServer(tmp_path_factory.mktemp("broker"), max_bytes=64 << 20)
    yield server.start(BrokerConfig())
    server.stop()


@pytest.fixture(scope="session")
def debian_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerConfig]:
    """Settings of a running plain redis-server."""
    executable = shutil.which("redis-server")
    if executable is None:
        assert not os.environ.get("CI"), "CI must install redis-server"
        pytest.skip("no redis-server on this machine: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("redis")
    socket = folder / "r.sock"
    process = subprocess.Popen(
        [executable, "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    config = BrokerConfig(url=f"unix://{socket}")
    yield wait_for(config)
    process.kill()
    process.wait()


def wait_for(config: BrokerConfig, seconds: float = 20) -> BrokerConfig:
    deadline = time.monotonic() + seconds
    while True:
        try:
            connect(config, "probe").close()
            return config
        except BrokerError:
            assert time.monotonic() < deadline, f"{config.url} does not answer"
            time.sleep(0.05)


def processes_below(run_dir: Path) -> list[str]:
    """Command lines of processes that still have a file of this run open or name it."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            paths = {f.path for f in process.open_files()} | {" ".join(process.info["cmdline"] or [])}
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        if process.pid != os.getpid() and any(str(run_dir) in p for p in paths):
            found.append(" ".join(process.info["cmdline"]))
    return found
