"""The learner's side of the work, on a Redis or Valkey server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import redis

from sppo.faults import point
from sppo.transport import codec
from sppo.transport.broker import IssueResult, Leases, Tickets
from sppo.transport.client import Connection, rows
from sppo.transport.fence import READERS, Fence
from sppo.transport.scripts import KEYS, WAITING, frame_key
from sppo.types import DeadLetter, QueueEntry, Ticket, TicketStream

PENDING_AT_ONCE = 500
SETTLED_AT_ONCE = 64


class RedisTickets(Tickets):
    """See `sppo.transport.broker`. A rejected group is reported to `leases` as a failed attempt."""

    def __init__(self, server: Connection, fence: Fence, leases: Leases) -> None:
        self._server = server
        self._fence = fence
        self._leases = leases

    def open_epoch(self, epoch: str) -> None:
        self._fence.open(epoch)

    def confirm_epoch(self) -> None:
        self._fence.step("confirm")

    def issue(self, tickets: Sequence[Ticket]) -> list[IssueResult]:
        calls = [
            {
                "uid": ticket.uid,
                "ticket": codec.pack_ticket(ticket),
                "min_version": ticket.min_version,
                "waiting": WAITING[ticket.stream],
            }
            for ticket in tickets
        ]
        return [cast("IssueResult", reply.decode()) for reply in self._fence.steps("issue", calls)]

    def withdraw(self, uids: Iterable[str]) -> None:
        self._fence.steps("withdraw", [{"uid": uid} for uid in uids])

    def open_tickets(self) -> set[str]:
        server = self._server
        return {
            uid.decode()
            for uid in server.call(lambda: server.client.hkeys(server.key(KEYS["tickets"])))
        }

    def claim(self, count: int, wait_s: float) -> list[QueueEntry]:
        return self._read_queue(">", count, wait_s)

    def pending(self) -> list[QueueEntry]:
        entries: list[QueueEntry] = []
        last = "0"
        while batch := self._read_queue(last, PENDING_AT_ONCE, 0):
            entries += batch
            last = batch[-1].entry_id
        return entries

    def fetch(self, entry: QueueEntry) -> bytes | None:
        server, name = self._server, frame_key(entry.gid)
        return cast("bytes | None", server.call(lambda: server.client.get(server.key(name))))

    def settle(self, entries: Sequence[QueueEntry]) -> None:
        calls = [_claimed(entry) | {"gid": entry.gid} for entry in entries]
        for i in range(0, len(calls), SETTLED_AT_ONCE):
            self._fence.steps("settle", calls[i : i + SETTLED_AT_ONCE])
            point("learner.settle.begun")

    def reject(self, entry: QueueEntry, reason: str) -> None:
        self._fence.step("reject", **_claimed(entry))
        point("learner.frame.rejected")
        # Both steps are idempotent, so a crash in between repeats them.
        self._leases.fail(entry.uid, entry.stream, entry.gid, reason)

    def dead_letters(self) -> list[DeadLetter]:
        server = self._server
        return [
            DeadLetter(
                uid=fields[b"uid"].decode(),
                stream=cast("TicketStream", fields[b"stream"].decode()),
                reason=fields[b"reason"].decode(),
            )
            for _, fields in server.call(lambda: server.client.xrange(server.key(KEYS["dead"])))
        ]

    def _read_queue(self, start: str, count: int, wait_s: float) -> list[QueueEntry]:
        block = max(1, int(wait_s * 1000)) if wait_s > 0 else None
        stream = {self._server.key(KEYS["queue"]): start}

        def read() -> Any:
            try:
                return self._server.client.xreadgroup(
                    READERS, "rank0", stream, count=count, block=block
                )
            except redis.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                # The server lost the queue; the learner reconciles when it sees a new boot.
                self.confirm_epoch()
                self._fence.retake()
                return None

        return [
            QueueEntry(
                entry_id=entry_id.decode(),
                gid=fields[b"gid"].decode(),
                uid=fields[b"uid"].decode(),
                stream=cast("TicketStream", fields[b"stream"].decode()),
                nbytes=int(fields[b"nbytes"]),
            )
            for entry_id, fields in rows(self._server.call(read))
            if fields
        ]


def _claimed(entry: QueueEntry) -> dict[str, Any]:
    """What the steps that end a claimed group are given."""
    return {
        "frame": frame_key(entry.gid),
        "readers": READERS,
        "entry": entry.entry_id,
        "uid": entry.uid,
        "nbytes": entry.nbytes,
    }
