"""The embedded server under our supervision, and what a broken broker looks like to a user."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis
from pydantic import SecretStr

from sppo import config
from sppo.config import BrokerConfig
from sppo.errors import BrokerError, ConfigError
from sppo.transport.broker import PushResult
from sppo.transport.client import make_client
from sppo.transport.redis_broker import connect
from sppo.transport.server import EmbeddedServer
from sppo.types import Member, Version
from tests import makers


def test_a_wrong_password_is_refused_with_the_mend(embedded: BrokerConfig) -> None:
    for password in ("", "guess"):
        with pytest.raises(ConfigError, match="SPPO_BROKER__PASSWORD"):
            connect(embedded.model_copy(update={"password": SecretStr(password)}), "run")


def test_it_listens_on_a_private_socket_only(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    settings = server.start(BrokerConfig())
    try:
        assert server.pid is not None
        process = psutil.Process(server.pid)
        assert not [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        folder = Path(settings.url.removeprefix("unix://")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert settings.password.get_secret_value() not in " ".join(process.cmdline())
    finally:
        server.stop()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["my runs", "ß 100%25#?", 'a"b\\c', "x" * 180])
def test_any_folder_and_any_temporary_folder_will_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Path(tempfile.mkdtemp())  # socket paths end at 107 bytes
    temporary = short / name[:10]
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    server = EmbeddedServer(tmp_path / name / "broker", max_bytes=1 << 20)
    try:
        server.start(BrokerConfig())
        assert server.answers()
        assert (tmp_path / name / "broker" / "server.log").exists()
    finally:
        server.stop()
        shutil.rmtree(short)


def test_what_it_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    first = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    broker = connect(first.start(BrokerConfig(outage_s=0.5)), "run")
    broker.tickets.open_epoch("a")
    broker.tickets.issue([makers.ticket()])
    life = broker.ping()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.stop()
    with pytest.raises(BrokerError, match=r"cannot be reached.* for \d+ s; is the server running"):
        broker.tickets.issue([makers.ticket("train-000000001")])
    second = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    again = connect(second.start(BrokerConfig()), "run")
    assert again.ping() != life
    lease = again.leases.lease(Version(epoch="a", n=0))
    assert lease is not None
    assert lease.ticket == makers.ticket()
    second.stop()


def test_a_server_that_is_killed_comes_back_and_its_clients_never_notice(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    broker = connect(server.start(BrokerConfig()), "run")
    broker.tickets.open_epoch("a")
    life = broker.ping()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert not server.answers()
    issued: list[str] = []
    waiting = threading.Thread(
        target=lambda: issued.extend(broker.tickets.issue([makers.ticket()]))
    )
    waiting.start()
    time.sleep(0.5)
    server.restart()  # from this thread: the server dies with the thread that started it
    waiting.join(10)
    assert issued == ["issued"]
    assert broker.ping() != life
    os.kill(server.pid, signal.SIGSTOP)
    assert not server.answers()
    server.restart()
    assert broker.tickets.open_tickets() == {makers.ticket().uid}
    server.stop()


def test_each_role_may_do_its_own_work_and_no_more(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, max_bytes=64 << 20)
    settings = server.start(BrokerConfig())
    learner, generator, scorer = (
        connect(server.credentials(settings, r), "run") for r in ("learner", "generator", "scorer")
    )
    try:
        learner.tickets.open_epoch("a")
        learner.tickets.issue([makers.ticket(), makers.ticket("train-000000001")])
        first = generator.leases.lease(Version(epoch="a", n=0))
        assert first is not None
        generator.leases.renew([first.ticket.uid])
        assert generator.leases.push(makers.group(first.ticket.uid)) is PushResult.OK
        second = generator.leases.lease(Version(epoch="a", n=0))
        assert second is not None
        generator.leases.fail(second.ticket.uid, "train", "g.1", "reason")
        entries = learner.tickets.claim(1, 1)
        generator.registry.heartbeat(Member(name="generator-0", role="generator"), 60)
        scorer.registry.heartbeat(Member(name="scorer-0", role="scorer"), 60)
        assert (
            generator.registry.stop_reason("workers")
            == scorer.registry.stop_reason("workers")
            == ""
        )
        assert [m.name for m in generator.registry.members()] == ["generator-0", "scorer-0"]
        for forbidden in (
            lambda: generator.tickets.open_epoch("b"),
            lambda: generator.tickets.settle(entries),
            lambda: generator.registry.request_stop("learner", "x"),
            lambda: generator.mailbox.send("control", b"x"),
            lambda: scorer.tickets.open_tickets(),
            lambda: scorer.registry.heartbeat(Member(name="learner-0", role="learner"), 60),
            lambda: generator.registry.heartbeat(Member(name="learner-0", role="learner"), 60),
            lambda: scorer.leases.lease(Version(epoch="a", n=0)),
            lambda: scorer.registry.request_stop("learner", "x"),
        ):
            with pytest.raises(BrokerError, match=r"refused a command.*ermission"):
                forbidden()
        for role, command in {
            "generator": "SCAN 0",
            "scorer": "RANDOMKEY",
            "learner": "DBSIZE",
        }.items():
            with pytest.raises(redis.exceptions.NoPermissionError):
                make_client(server.credentials(settings, role)).execute_command(*command.split())
        for role in ("learner", "generator", "scorer", "operator"):
            client = make_client(server.credentials(settings, role))
            for command in (
                "FLUSHALL",
                "CONFIG GET requirepass",
                "SHUTDOWN",
                "KEYS *",
                "ACL LIST",
                "MONITOR",
            ):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command.split())
            client.close()
        learner.tickets.settle(entries)
        assert learner.depths()["bytes"] == 0
    finally:
        server.stop()


def test_a_full_server_holds_pushes_back_and_what_frees_memory_still_works(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, max_bytes=4 << 20)  # the server's own cap is twice that
    broker = connect(server.start(BrokerConfig(max_bytes=1 << 30)), "run")
    try:
        broker.tickets.open_epoch("a")
        uids = [f"train-{i:09d}" for i in range(12)]
        broker.tickets.issue([makers.ticket(uid) for uid in uids])
        results = []
        for uid in uids:
            broker.leases.lease(Version(epoch="a", n=0))
            results.append(broker.leases.push(makers.big_group(uid, nbytes=1 << 20)))
        assert PushResult.OK in results
        assert results[-1] is PushResult.FULL
        entries = broker.tickets.claim(20, 1)
        assert len(entries) == results.count(PushResult.OK)
        broker.tickets.settle(entries)
        assert broker.leases.push(makers.big_group(uids[-1], nbytes=1 << 20)) is PushResult.OK
        assert broker.leftovers()  # one group is queued
        broker.tickets.settle(broker.tickets.claim(20, 1))
        broker.tickets.withdraw(broker.tickets.open_tickets())
        assert broker.leftovers() == []
    finally:
        server.stop()


def test_a_server_on_the_network_needs_tls_and_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, mend in {
        "redis://10.0.0.5:6379": "rediss://",
        "redis://broker.example:6379": "rediss://",
        "rediss://broker.example:6379": "SPPO_BROKER__PASSWORD",
    }.items():
        with pytest.raises(ConfigError, match=mend):
            config.load("quickstart", [f"broker.url={url}"])
    for url in (
        "redis://127.0.0.1:6379",
        "redis://localhost",
        "redis://[::1]:6379",
        "unix:///run/redis.sock",
    ):
        assert config.load("quickstart", [f"broker.url={url}"]).broker.url == url
    monkeypatch.setenv("SPPO_BROKER__PASSWORD", "x")
    assert config.load("quickstart", ["broker.url=rediss://broker.example:6379"])


@contextmanager
def tls_before(socket_path: str, folder: Path) -> Iterator[int]:
    """A port that speaks TLS and passes what it hears to a server's socket, as stunnel would."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(socket_path)
        await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(take, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_tls_to_a_server_of_ones_own(tmp_path: Path, embedded: BrokerConfig) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    with tls_before(embedded.url.removeprefix("unix://"), tmp_path) as port:
        own = embedded.model_copy(
            update={"url": f"rediss://localhost:{port}", "tls_ca": str(tmp_path / "cert.pem")}
        )
        broker = connect(own, "run")
        broker.tickets.open_epoch("a")
        assert broker.tickets.issue([makers.ticket()]) == ["issued"]
        broker.close()
        with pytest.raises(BrokerError, match="certificate verify failed"):
            connect(own.model_copy(update={"tls_ca": ""}), "run")


def test_two_servers_cannot_open_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        f"server = EmbeddedServer(Path({str(tmp_path)!r}), max_bytes=1 << 20); "
        f"server.start(BrokerConfig())\n"
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


def test_a_role_that_starts_while_the_broker_is_away_waits_for_it(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    config = server.start(BrokerConfig(outage_s=20))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(BrokerError, match="is the server running"):
        connect(config, "run")
    made: list[str] = []
    waiting = threading.Thread(target=lambda: made.append(connect(config, "run", wait=True).ping()))
    waiting.start()
    time.sleep(0.3)
    server.restart()
    waiting.join(10)
    assert made
    server.stop()


def test_a_new_connection_to_a_silent_server_times_out_as_such(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    config = server.start(BrokerConfig(outage_s=20))
    client = make_client(config, timeout_s=0.5)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(
        redis.TimeoutError
    ):  # a new connection: it is accepted by the kernel, and nobody answers
        client.ping()
    os.kill(server.pid, signal.SIGCONT)
    assert client.ping()
    server.stop()
