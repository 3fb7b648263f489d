"""The embedded server under our supervision, and what a broken broker looks like to a user."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from sppo.config import BrokerConfig
from sppo.errors import BrokerError, ConfigError
from sppo.transport.redis_broker import connect
from sppo.transport.server import EmbeddedServer
from sppo.types import Version
from tests import makers


def test_a_wrong_password_is_refused_with_the_mend(embedded: BrokerConfig) -> None:
    for password in ("", "guess"):
        with pytest.raises(ConfigError, match="SPPO_BROKER__PASSWORD"):
            connect(embedded.model_copy(update={"password": SecretStr(password)}), "run")


def test_it_listens_on_a_private_socket_only(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    config = server.start(BrokerConfig())
    try:
        assert server.pid is not None
        process = psutil.Process(server.pid)
        assert not [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        folder = Path(config.url.removeprefix("unix://")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert config.password.get_secret_value() not in " ".join(process.cmdline())
    finally:
        server.stop()
    assert not folder.exists()


def test_what_it_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    first = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    broker = connect(first.start(BrokerConfig()), "run")
    broker.open_epoch("a")
    broker.issue([makers.ticket()])
    life = broker.ping()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.stop()
    with pytest.raises(BrokerError, match="cannot be reached"):
        broker.issue([makers.ticket("train-000000001")])
    second = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    again = connect(second.start(BrokerConfig()), "run")
    assert again.ping() != life
    lease = again.lease(Version(epoch="a", n=0))
    assert lease is not None
    assert lease.ticket == makers.ticket()
    second.stop()


def test_two_servers_cannot_open_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sppo.transport.server.STOP_GRACE_S", 0.5)
    server = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    server.start(BrokerConfig())
    with pytest.raises(BrokerError, match="sppo-cli down"):
        EmbeddedServer(tmp_path, max_bytes=1 << 20).start(BrokerConfig())
    server.stop()


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from sppo.config import BrokerConfig; from sppo.transport.server import EmbeddedServer\n"
        f"server = EmbeddedServer(Path({str(tmp_path)!r}), max_bytes=1 << 20); server.start(BrokerConfig())\n"
        "print(server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.05)
