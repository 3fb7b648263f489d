"""Messages between roles, on a Redis or Valkey server."""

from __future__ import annotations

from sppo.transport.broker import Channel, Mailbox
from sppo.transport.client import Connection, rows

# A sync that is hundreds of messages behind is over; whoever missed it is announced the next one.
KEPT: dict[Channel, int] = {"control": 256, "replies": 1024, "metrics": 20_000}
READ_AT_ONCE = 1000


class RedisMailbox(Mailbox):
    """See `sppo.transport.broker`. A channel is a stream, and a position the id of an entry."""

    def __init__(self, server: Connection) -> None:
        self._server = server

    def send(self, channel: Channel, message: bytes) -> None:
        client, name = self._server.client, self._server.key(channel)
        self._server.call(lambda: client.xadd(name, {"m": message}, maxlen=KEPT[channel]))

    def tail(self, channel: Channel) -> str:
        client, name = self._server.client, self._server.key(channel)
        newest = self._server.call(lambda: client.xrevrange(name, count=1))
        return newest[0][0].decode() if newest else "0"

    def receive(self, channel: Channel, after: str, wait_s: float) -> list[tuple[str, bytes]]:
        client, name = self._server.client, self._server.key(channel)
        block = max(1, int(wait_s * 1000)) if wait_s > 0 else None
        reply = self._server.call(
            lambda: client.xread({name: after}, count=READ_AT_ONCE, block=block)
        )
        return [(position.decode(), fields[b"m"]) for position, fields in rows(reply)]
