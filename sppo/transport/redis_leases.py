"""A generator's side of the work, on a Redis or Valkey server."""

from __future__ import annotations

from collections.abc import Sequence

from sppo.faults import point
from sppo.transport import codec
from sppo.transport.broker import Leases, PushResult
from sppo.transport.client import Connection
from sppo.transport.scripts import KEYS, WAITING, frame_key
from sppo.types import Group, Lease, TicketStream, Version

FRAME_TTL_S = 600


class RedisLeases(Leases):
    """See `sppo.transport.broker`."""

    def __init__(self, server: Connection) -> None:
        self._server = server
        self._config = server.config
        self._was_full = False

    def lease(self, applied: Version) -> Lease | None:
        reply = self._server.step(
            "lease",
            applied_epoch=applied.epoch,
            applied_n=applied.n,
            lease_ms=self._lease_ms,
            epoch_key=self._server.key(KEYS["epoch"]),
        )
        if reply is None:
            return None
        return Lease(ticket=codec.unpack_ticket(reply[0]), attempt=int(reply[1]))

    def renew(self, uids: Sequence[str]) -> None:
        self._server.steps("renew", [{"uid": uid, "lease_ms": self._lease_ms} for uid in uids])

    def release(self, uid: str, stream: TicketStream) -> None:
        self._server.step("release", uid=uid, waiting=WAITING[stream])

    def push(self, group: Group) -> PushResult:
        frame = codec.encode_group(group)
        if len(frame) > self._config.max_bytes // 2:
            raise ValueError(
                f"the group takes {len(frame)} bytes, more than half of broker.max_bytes = "
                f"{self._config.max_bytes}"
            )
        if self._was_full and not self._has_room(len(frame)):
            return PushResult.FULL  # without sending the frame again only to hear so
        while True:
            if not self._store(group.gid, frame):
                return PushResult.FULL
            point("generator.push.stored")
            result = self._server.step(
                "push",
                frame=frame_key(group.gid),
                gid=group.gid,
                uid=group.uid,
                stream=group.stream,
                nbytes=len(frame),
                max_groups=self._config.max_groups,
                max_bytes=self._config.max_bytes,
            ).decode()
            self._was_full = result == "FULL"
            if result != "LOST":
                return PushResult(result)

    def fail(
        self, uid: str, stream: TicketStream, attempt: str, reason: str, final: bool = False
    ) -> bool:
        return bool(
            self._server.step(
                "fail",
                uid=uid,
                stream=stream,
                waiting=WAITING[stream],
                attempt=attempt,
                reason=reason,
                most=1 if final else self._config.max_attempts,
            )
        )

    @property
    def _lease_ms(self) -> int:
        return int(self._config.lease_s * 1000)

    def _store(self, gid: str, frame: bytes) -> bool:
        """Whether the server took the frame: one that is out of memory refuses this one write."""
        server, name = self._server, self._server.key(frame_key(gid))
        return bool(
            server.call(
                lambda: server.client.set(name, frame, ex=FRAME_TTL_S), when_full=lambda: False
            )
        )

    def _has_room(self, nbytes: int) -> bool:
        server = self._server
        groups = server.call(lambda: server.client.xlen(server.key(KEYS["queue"])))
        used = int(server.call(lambda: server.client.get(server.key(KEYS["bytes"]))) or 0)
        return bool(groups < self._config.max_groups and used + nbytes <= self._config.max_bytes)
