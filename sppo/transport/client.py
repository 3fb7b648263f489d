"""The client of a Redis or Valkey server: what it does when the server is gone, loading or full.

Every write may reach the server twice, because the client resends a command whose reply was lost.
Each step on tickets and groups is idempotent for that reason; messages may be doubled, and their
readers tolerate that.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import redis
from redis._parsers.encoders import Encoder
from redis.backoff import NoBackoff
from redis.connection import PythonRespSerializer
from redis.retry import Retry

from sppo.config import BrokerConfig
from sppo.errors import BrokerError, ConfigError, FencedError
from sppo.transport import scripts

SOCKET_TIMEOUT_S = 15.0
RETRY_S = 0.2
TELL_S = 2.0
BULK = 6000
"""Arguments above so many bytes go to the socket as they are, without a copy into the command."""
READ_BYTES = 1 << 20
AWAY = ("READONLY", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED", "BUSY ", "LOADING")
"""Answers of a server that changes its role or runs a long command."""

# redis-py 8.1 reads the port of a connection that fails; a Unix socket has none, and an
# AttributeError hides the error.
redis.UnixDomainSocketConnection.port = 0  # type: ignore[attr-defined]

R = TypeVar("R")
log = logging.getLogger(__name__)


def make_client(config: BrokerConfig, *, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A plain client with the credentials of these settings. Raises ValueError for an address it
    cannot parse.
    """
    secure = config.url.startswith("rediss://") and config.tls_ca
    return redis.Redis.from_url(
        config.url,
        username=config.username or None,
        password=config.password.get_secret_value() or None,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(5.0, timeout_s),
        socket_read_size=READ_BYTES,
        retry=Retry(NoBackoff(), 0),  # Connection repeats, and knows for how long
        command_packer=_packer(),
        **({"ssl_ca_certs": config.tls_ca} if secure else {}),
    )


def _packer() -> Any:
    encoder = Encoder("utf-8", "strict", False)  # type: ignore[no-untyped-call]
    return PythonRespSerializer(BULK, encoder.encode)


class Connection:
    """One run's keys on one server. Safe for use from several threads.

    Its calls wait for a server that is away for up to `broker.outage_s`, then raise BrokerError.
    """

    def __init__(self, config: BrokerConfig, run: str) -> None:
        """Raises ValueError for an address that cannot be parsed."""
        self.config = config
        self.run = run
        # redis-py types each reply as every form it might take; this client answers in bytes.
        self.client: Any = make_client(config)
        self._scripts = {s.name: (s, self.client.register_script(s.source)) for s in scripts.load()}

    def key(self, name: str) -> str:
        """A key of this run."""
        return f"sppo:{{{self.run}}}:{name}"

    def step(self, name: str, **given: Any) -> Any:
        """One atomic step (`lua/<name>.lua`), given what its first lines name."""
        script, registered = self._scripts[name]
        keys, arguments = self._order(script, given)
        # redis-py loads the script again when a restarted server does not know it (NOSCRIPT).
        return self.call(lambda: registered(keys=keys, args=arguments))

    def steps(self, name: str, calls: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The same step for many in one round trip, and so one flush of the server's log."""
        if not calls:
            return []
        script, registered = self._scripts[name]
        ordered = [self._order(script, given) for given in calls]

        def send() -> list[Any]:
            with self.client.pipeline(transaction=False) as pipe:
                for keys, arguments in ordered:
                    pipe.evalsha(registered.sha, len(keys), *keys, *arguments)
                return cast("list[Any]", pipe.execute())

        def run() -> list[Any]:
            try:
                return send()
            except redis.exceptions.NoScriptError:  # it has restarted; each step may be repeated
                self.client.script_load(script.source)
                return send()

        return self.call(run)

    def _order(
        self, script: scripts.Script, given: Mapping[str, Any]
    ) -> tuple[list[str], list[Any]]:
        keys, arguments = script.order(given)
        return [self.key(k) for k in keys], arguments

    def call(
        self,
        run: Callable[[], R],
        *,
        patience_s: float | None = None,
        when_full: Callable[[], R] | None = None,
    ) -> R:
        """`run`, repeated while the server is gone, loading or full, for `broker.outage_s` unless
        told otherwise; `when_full` answers for a server that is out of memory.

        Raises FencedError, ConfigError for refused credentials, else BrokerError.
        """
        patience_s = self.config.outage_s if patience_s is None else patience_s
        began = told = time.monotonic()
        while True:
            try:
                return run()
            except (redis.ResponseError, redis.ConnectionError, redis.TimeoutError) as error:
                if when_full is not None and isinstance(error, redis.exceptions.OutOfMemoryError):
                    return when_full()
                problem, mend = self._passing(error)
                cause = error
            now = time.monotonic()
            if now - began >= patience_s:
                waited = f" for {now - began:.0f} s" if patience_s else ""
                raise BrokerError(
                    f"broker.url = {self.config.url!r} {problem}{waited}; {mend}"
                ) from cause
            if now - told > TELL_S:
                told = now
                log.warning(
                    "broker %s; waiting, up to broker.outage_s = %.0f s", problem, patience_s
                )
            time.sleep(RETRY_S)

    def _passing(self, error: redis.RedisError) -> tuple[str, str]:
        """What to say of an error that may pass, and its mend. Raises for one that will not."""
        if isinstance(error, redis.AuthenticationError):
            raise ConfigError(
                f"broker {self.config.url}: {error}; set SPPO_BROKER__USERNAME and "
                f"SPPO_BROKER__PASSWORD"
            ) from error
        if isinstance(error, redis.exceptions.OutOfMemoryError):
            return "is out of memory", "raise its maxmemory or lower broker.max_bytes"
        if not isinstance(error, redis.ResponseError):
            return (
                f"cannot be reached from {socket.gethostname()}: {error}",
                "is the server running?",
            )
        text = str(error)
        if "FENCED" in text:
            raise FencedError(
                "another learner has taken over this run; this one stops without writing"
            ) from error
        if "MISCONF" in text:
            return f"cannot write to its disk: {error}", "free some disk space"
        if any(word in text for word in AWAY):
            # Perhaps another server answers at this address now.
            self.client.connection_pool.disconnect(inuse_connections=False)
            return f"is not the primary, or busy: {error}", "look at the server"
        raise BrokerError(f"broker {self.config.url} refused a command: {error}") from error

    def close(self) -> None:
        """Release the sockets."""
        self.client.close()


def rows(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The rows of an XREAD reply for one stream, in the list form of protocol 2 or the map form of
    protocol 3.
    """
    if not reply:
        return []
    streams = list(reply.values()) if isinstance(reply, dict) else [rows for _, rows in reply]
    found = streams[0]
    if found and isinstance(found[0], list):  # protocol 3 wraps the rows once more
        found = found[0]
    return [(entry_id, fields or {}) for entry_id, fields in found]
