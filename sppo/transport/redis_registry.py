"""Who is there, who should stop, and which run has which name, on a Redis or Valkey server."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import cast

from sppo.errors import BadFrame
from sppo.transport import codec
from sppo.transport.broker import Registry
from sppo.transport.client import Connection
from sppo.types import Member

MEMBER_STOP_TTL_S = 120
COMPARE_S = 30.0
PROMPT_S = 1.0
"""Longest round trip by which clocks are compared."""

log = logging.getLogger(__name__)


class RedisRegistry(Registry):
    """See `sppo.transport.broker`; and the names of runs, for `sppo.transport.runs`."""

    def __init__(self, server: Connection) -> None:
        self._server = server
        self._announced: tuple[str, bytes] | None = None
        self._ahead_s = 0.0
        self._seen: tuple[str, ...] = ()
        """The names of members that were there last."""
        self._compare_at = 0.0
        """When to look at the server's clock again."""

    def heartbeat(self, member: Member, ttl_s: float) -> None:
        client, key = self._server.client, self._server.key
        if time.monotonic() >= self._compare_at and self._compare_clocks():
            self._compare_at = time.monotonic() + COMPARE_S
        value = codec.pack(asdict(member) | {"ahead_s": self._ahead_s})

        def tell() -> None:
            with client.pipeline(transaction=False) as pipe:
                pipe.set(key(f"hb:{member.name}"), value, px=int(ttl_s * 1000))
                pipe.sadd(key("members"), member.name)
                pipe.execute()

        self._server.call(tell)

    def _compare_clocks(self) -> bool:
        """With the server's, to half of a round trip; a slow one tells nothing, and is False."""
        sent = time.time()
        seconds, micros = self._server.call(self._server.client.time)
        heard = time.time()
        if not 0 <= heard - sent < PROMPT_S:
            return False
        self._ahead_s = round((sent + heard) / 2 - (seconds + micros / 1e6), 3)
        return True

    def leave(self, name: str) -> None:
        client, key = self._server.client, self._server.key
        self._server.call(lambda: client.delete(key(f"hb:{name}")))
        self._server.call(lambda: client.srem(key("members"), name))

    def members(self) -> list[Member]:
        client, key = self._server.client, self._server.key

        def look() -> list[bytes | None]:
            # In one go with those who were there the last time: mostly they still are.
            known = self._seen
            with client.pipeline(transaction=False) as pipe:
                pipe.smembers(key("members"))
                pipe.mget([key(f"hb:{n}") for n in known or ("",)])
                names, values = pipe.execute()
            self._seen = tuple(sorted(n.decode() for n in names))
            if self._seen == known:
                return cast("list[bytes | None]", values if known else [])
            return cast(
                "list[bytes | None]",
                client.mget([key(f"hb:{n}") for n in self._seen]) if self._seen else [],
            )

        found = [_member(value) for value in self._server.call(look) if value is not None]
        return [member for member in found if member is not None]

    def alive(self, name: str) -> bool:
        """Whether this member's heartbeat is there."""
        client, key = self._server.client, self._server.key
        return bool(self._server.call(lambda: client.exists(key(f"hb:{name}"))))

    def request_stop(self, audience: str, reason: str) -> None:
        client, key = self._server.client, self._server.key
        # One member's is for the process that has the name now, not for whoever takes it later.
        expires = None if audience in ("learner", "workers") else MEMBER_STOP_TTL_S
        self._server.call(lambda: client.set(key(f"stop:{audience}"), reason, ex=expires))

    def stop_reason(self, *audiences: str) -> str:
        client, key = self._server.client, self._server.key
        values = self._server.call(lambda: client.mget([key(f"stop:{a}") for a in audiences]))
        return str(next((value.decode() for value in values if value), ""))

    def announce(self, name: str, record: bytes) -> None:
        """Say what run has this name."""
        self._announced = name, record
        self._server.call(lambda: self._server.client.set(_run_key(name), record))

    def announce_again(self) -> None:
        """To a server that has lost it."""
        if self._announced is not None:
            self.announce(*self._announced)

    def get_run(self, name: str) -> bytes | None:
        """What was announced last under this name."""
        client = self._server.client
        return cast("bytes | None", self._server.call(lambda: client.get(_run_key(name))))


def _run_key(name: str) -> str:
    return f"sppo:{name}:run"


def _member(value: bytes) -> Member | None:
    try:
        return Member(**codec.unpack(value))
    except (BadFrame, TypeError):  # of another version, or nonsense: nobody to work with
        log.warning("an entry of the registry cannot be read: %r", value[:100])
        return None
