"""The broker in one process' memory: the same contract as the Redis broker, for unit tests and
small scripts.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sppo.config import BrokerConfig
from sppo.errors import FencedError
from sppo.transport import codec
from sppo.transport.broker import Broker, Channel, IssueResult, PushResult
from sppo.types import DeadLetter, Group, Lease, Member, QueueEntry, Ticket, Version

T = TypeVar("T")


class MemoryBroker(Broker):
    """One object stands for the server and is shared by threads; `session()` gives each learner
    life its own fence.
    """

    run_key = "memory"

    def __init__(
        self, config: BrokerConfig | None = None, *, server: MemoryBroker | None = None
    ) -> None:
        self._config = config or BrokerConfig()
        self._epoch = ""
        if server is not None:
            self.__dict__.update({k: v for k, v in server.__dict__.items() if k not in ("_epoch",)})
            return
        self._changed = threading.Condition(threading.RLock())
        self._server_epoch = [""]
        self._life = uuid.uuid4().hex
        self._tickets: dict[str, Ticket] = {}
        self._state: dict[str, str] = {}
        self._todo: dict[str, deque[str]] = {"train": deque(), "eval": deque()}
        self._leases: dict[str, float] = {}
        self._attempts: defaultdict[str, int] = defaultdict(int)
        self._failures: defaultdict[str, int] = defaultdict(int)
        self._failed_at: dict[str, str] = {}
        self._frames: dict[str, bytes] = {}
        self._queue: dict[str, QueueEntry] = {}
        self._claimed: set[str] = set()
        self._entries = [0]
        self._dead: list[DeadLetter] = []
        self._members: dict[str, tuple[Member, float]] = {}
        self._messages: defaultdict[str, list[bytes]] = defaultdict(list)
        self._stop = {"learner": "", "workers": ""}

    def session(self) -> MemoryBroker:
        """Another client of the same server."""
        return MemoryBroker(self._config, server=self)

    # learner --------------------------------------------------------------------------------------
    def open_epoch(self, epoch: str) -> None:
        with self._changed:
            self._epoch = self._server_epoch[0] = epoch

    def confirm_epoch(self) -> None:
        with self._changed:
            self._fence()

    def issue(self, tickets: Sequence[Ticket]) -> list[IssueResult]:
        results: list[IssueResult] = []
        with self._changed:
            self._fence()
            for ticket in tickets:
                results.append(self._issue(ticket))
            self._changed.notify_all()
        return results

    def _issue(self, ticket: Ticket) -> IssueResult:
        state = self._state.get(ticket.uid, "")
        if state == "dead":
            return "dead"
        self._tickets[ticket.uid] = ticket
        if state.startswith("q:"):
            return "open"
        if ticket.uid in self._leases or ticket.uid in self._todo[ticket.stream]:
            return "open"
        self._todo[ticket.stream].append(ticket.uid)
        return "issued"

    def withdraw(self, uids: Iterable[str]) -> None:
        with self._changed:
            self._fence()
            for uid in uids:
                self._forget(uid)
                self._leases.pop(uid, None)
                for todo in self._todo.values():
                    if uid in todo:
                        todo.remove(uid)

    def open_tickets(self) -> set[str]:
        with self._changed:
            return set(self._tickets)

    def claim(self, count: int, wait_s: float) -> list[QueueEntry]:
        def fresh() -> list[QueueEntry]:
            return [e for e in self._queue.values() if e.entry_id not in self._claimed][:count]

        with self._changed:
            entries = self._wait(fresh, wait_s)
            self._claimed.update(e.entry_id for e in entries)
            return entries

    def pending(self) -> list[QueueEntry]:
        with self._changed:
            return [e for e in self._queue.values() if e.entry_id in self._claimed]

    def fetch(self, entry: QueueEntry) -> bytes | None:
        with self._changed:
            return self._frames.get(entry.gid)

    def settle(self, entries: Sequence[QueueEntry]) -> None:
        with self._changed:
            self._fence()
            for entry in entries:
                if self._drop(entry) and self._state.get(entry.uid) == f"q:{entry.gid}":
                    del self._state[entry.uid]
                    self._forget(entry.uid)

    def reject(self, entry: QueueEntry, reason: str) -> None:
        with self._changed:
            self._fence()
            if self._drop(entry):
                self._state.pop(entry.uid, None)
                self._leases[entry.uid] = 0.0
            self.fail(entry.uid, entry.gid, reason)

    def dead_letters(self) -> list[DeadLetter]:
        with self._changed:
            return list(self._dead)

    # generator ------------------------------------------------------------------------------------
    def lease(self, applied: Version) -> Lease | None:
        with self._changed:
            if applied.epoch != self._server_epoch[0]:
                return None
            uid = self._next(applied.n)
            if uid is None:
                return None
            self._leases[uid] = time.monotonic() + self._config.lease_s
            self._attempts[uid] += 1
            return Lease(ticket=self._tickets[uid], attempt=self._attempts[uid])

    def _next(self, n: int) -> str | None:
        now = time.monotonic()
        for uid, deadline in sorted(self._leases.items(), key=lambda item: item[1]):
            if uid not in self._tickets:  # settled meanwhile by the push of another attempt
                del self._leases[uid]
            elif deadline <= now and self._tickets[uid].min_version <= n:
                return uid
        for stream in ("eval", "train"):
            todo = self._todo[stream]
            while todo and todo[0] not in self._tickets:
                todo.popleft()
            if todo and self._tickets[todo[0]].min_version <= n:
                return todo.popleft()
        return None

    def renew(self, uids: Sequence[str]) -> None:
        with self._changed:
            for uid in uids:
                if uid in self._leases:
                    self._leases[uid] = time.monotonic() + self._config.lease_s

    def release(self, uid: str) -> None:
        with self._changed:
            if self._leases.pop(uid, None) is not None and uid in self._tickets:
                self._todo[self._tickets[uid].stream].appendleft(uid)
                self._changed.notify_all()

    def push(self, group: Group) -> PushResult:
        frame = codec.encode_group(group)
        with self._changed:
            if group.uid in self._state or group.uid not in self._tickets:
                self._leases.pop(group.uid, None)
                return PushResult.DUPLICATE
            queued = sum(e.nbytes for e in self._queue.values())
            if (
                len(self._queue) >= self._config.max_groups
                or queued + len(frame) > self._config.max_bytes
            ):
                return PushResult.FULL
            self._entries[0] += 1
            entry = QueueEntry(
                entry_id=f"{self._entries[0]:012d}",
                gid=group.gid,
                uid=group.uid,
                stream=group.stream,
                nbytes=len(frame),
            )
            self._frames[group.gid] = frame
            self._queue[entry.entry_id] = entry
            self._state[group.uid] = f"q:{group.gid}"
            self._leases.pop(group.uid, None)
            self._changed.notify_all()
            return PushResult.OK

    def fail(self, uid: str, attempt: str, reason: str, final: bool = False) -> bool:
        with self._changed:
            ticket = self._tickets.get(uid)
            if self._state.get(uid) == "dead":
                return self._failed_at.get(uid) == attempt
            if ticket is None or uid in self._state or self._failed_at.get(uid) == attempt:
                return False
            self._failed_at[uid] = attempt
            self._leases.pop(uid, None)
            self._failures[uid] += 1
            if final or self._failures[uid] >= self._config.max_attempts:
                self._state[uid] = "dead"
                self._dead.append(DeadLetter(uid=uid, stream=ticket.stream, reason=reason))
                del self._tickets[uid]
                return True
            if uid not in self._todo[ticket.stream]:
                self._todo[ticket.stream].append(uid)
            return False

    # everyone -------------------------------------------------------------------------------------
    def heartbeat(self, member: Member, ttl_s: float) -> None:
        with self._changed:
            self._members[member.name] = (member, time.monotonic() + ttl_s)

    def leave(self, name: str) -> None:
        with self._changed:
            self._members.pop(name, None)

    def members(self) -> list[Member]:
        with self._changed:
            now = time.monotonic()
            return [m for _, (m, deadline) in sorted(self._members.items()) if deadline > now]

    def send(self, channel: Channel, message: bytes) -> None:
        with self._changed:
            self._messages[channel].append(message)
            self._changed.notify_all()

    def tail(self, channel: Channel) -> str:
        with self._changed:
            return str(len(self._messages[channel]))

    def receive(self, channel: Channel, after: str, wait_s: float) -> list[tuple[str, bytes]]:
        def newer() -> list[tuple[str, bytes]]:
            messages = self._messages[channel]
            return [(str(i + 1), messages[i]) for i in range(int(after), len(messages))]

        with self._changed:
            return self._wait(newer, wait_s)

    def request_stop(self, audience: str, reason: str) -> None:
        self._stop[audience] = reason

    def stop_reason(self, *audiences: str) -> str:
        return next((self._stop[a] for a in audiences if self._stop.get(a)), "")

    def ping(self) -> str:
        return self._life

    def depths(self) -> dict[str, int]:
        with self._changed:
            return {
                "todo": len(self._todo["train"]),
                "eval": len(self._todo["eval"]),
                "leased": len(self._leases),
                "queued": len(self._queue),
                "dead": len(self._dead),
                "bytes": sum(e.nbytes for e in self._queue.values()),
            }

    def close(self) -> None:
        """Nothing to release."""

    # inside ---------------------------------------------------------------------------------------
    def _fence(self) -> None:
        if self._epoch != self._server_epoch[0]:
            raise FencedError(
                "another learner has taken over this run; this one stops without writing"
            )

    def _forget(self, uid: str) -> None:
        for table in (self._tickets, self._attempts, self._failures, self._failed_at):
            table.pop(uid, None)

    def _drop(self, entry: QueueEntry) -> bool:
        if self._queue.pop(entry.entry_id, None) is None:
            return False
        self._frames.pop(entry.gid, None)
        self._claimed.discard(entry.entry_id)
        return True

    def _wait(self, read: Callable[[], list[T]], wait_s: float) -> list[T]:
        deadline = time.monotonic() + wait_s
        while not (found := read()) and (left := deadline - time.monotonic()) > 0:
            self._changed.wait(left)
        return found
