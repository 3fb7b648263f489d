"""The broker over the Redis protocol (Redis or Valkey)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sppo.config import BrokerConfig
from sppo.errors import ConfigError
from sppo.transport.broker import Broker
from sppo.transport.client import Connection
from sppo.transport.fence import Fence
from sppo.transport.redis_leases import RedisLeases
from sppo.transport.redis_mailbox import RedisMailbox
from sppo.transport.redis_registry import RedisRegistry
from sppo.transport.redis_tickets import RedisTickets
from sppo.transport.scripts import KEYS, frame_key

MEMORY_MARGIN = 1.25
R = TypeVar("R")


def connect(config: BrokerConfig, run: str, *, wait: bool = False) -> RedisBroker:
    """A broker on `config.url`. It must answer now, unless `wait`; later calls wait for it up to
    `broker.outage_s`.

    Raises ConfigError when the server refuses the credentials and BrokerError when it cannot be
    reached.
    """
    try:
        broker = RedisBroker(Connection(config, run))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"broker.url = {config.url!r}: {error}") from error
    if wait:
        broker.ping()
    else:
        broker.check()
    return broker


class RedisBroker(Broker):
    """See `sppo.transport.broker`. Safe for use from several threads."""

    registry: RedisRegistry

    def __init__(self, server: Connection) -> None:
        self.run_key = server.run
        self.registry = RedisRegistry(server)
        self.mailbox = RedisMailbox(server)
        self.leases = RedisLeases(server)
        fence = Fence(server, self.registry.announce_again)
        self.tickets = RedisTickets(server, fence, self.leases)
        self._server = server

    def ping(self) -> str:
        return str(self._server.call(lambda: self._server.client.info("server"))["run_id"])

    def depths(self) -> dict[str, int]:
        client, key = self._server.client, self._server.key

        def look() -> list[Any]:
            with client.pipeline(transaction=False) as pipe:
                pipe.llen(key(KEYS["todo"])).llen(key(KEYS["todo_eval"]))
                pipe.zcard(key(KEYS["lease"])).xlen(key(KEYS["queue"])).xlen(key(KEYS["dead"]))
                pipe.get(key(KEYS["bytes"]))
                return list(pipe.execute())

        names = ("todo", "eval", "leased", "queued", "dead", "bytes")
        return {name: int(n or 0) for name, n in zip(names, self._server.call(look), strict=True)}

    def close(self) -> None:
        self._server.close()

    def check(self) -> None:
        """Raises ConfigError or BrokerError if the server does not answer at once."""
        self._server.call(lambda: self._server.client.info("server"), patience_s=0.0)

    def ask(self, question: Callable[[Any], R]) -> R:
        """What the server's client answers now. Raises as `check`."""
        return self._server.call(lambda: question(self._server.client), patience_s=0.0)

    def check_memory(self) -> None:
        """Raises ConfigError if the server may drop keys, or has less memory than the run may
        queue.
        """
        config = self._server.config
        memory = self._server.call(lambda: self._server.client.info("memory"), patience_s=0.0)
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        limit = int(memory.get("maxmemory", 0))
        if limit and policy != "noeviction":
            raise ConfigError(
                f"broker.url = {config.url!r}: maxmemory-policy is {policy}, which drops tickets "
                "in silence; set noeviction"
            )
        if limit and limit < config.max_bytes * MEMORY_MARGIN:
            raise ConfigError(
                f"broker.max_bytes = {config.max_bytes}: the server's maxmemory is {limit}; "
                f"lower the one to {int(limit / MEMORY_MARGIN)}, or raise the other"
            )

    def leftovers(self) -> list[str]:
        """What is still there of work that should have ended: for an audit after a run; walks over
        every key.
        """
        server, client = self._server, self._server.client
        frames = f"{glob(server.key(frame_key('')))}*"
        names = server.call(lambda: list(client.scan_iter(match=frames, count=1000)))
        expiries = server.call(lambda: [client.ttl(name) for name in names])
        found = [
            f"frame {name.decode()} without an expiry"
            for name, ttl in zip(names, expiries, strict=True)
            if ttl == -1
        ]
        depths = self.depths()
        found += [f"{k} {depths[k]}" for k in ("queued", "bytes") if depths[k]]
        open_tickets = len(self.tickets.open_tickets())
        return found + ([f"open tickets {open_tickets}"] if open_tickets else [])


def glob(text: str) -> str:
    """A text as a pattern that matches itself alone."""
    return "".join(f"\\{c}" if c in "*?[\\" else c for c in text)
