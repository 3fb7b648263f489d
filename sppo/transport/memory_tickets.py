"""Tickets and leases in one process' memory."""

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
from sppo.transport.broker import IssueResult, Leases, PushResult, Tickets
from sppo.types import DeadLetter, Group, Lease, QueueEntry, Ticket, TicketStream, Version

T = TypeVar("T")


def wait_for(changed: threading.Condition, read: Callable[[], list[T]], wait_s: float) -> list[T]:
    """What `read` finds, as soon as it finds anything, or after `wait_s`; `changed` is held."""
    deadline = time.monotonic() + wait_s
    while not (found := read()) and (left := deadline - time.monotonic()) > 0:
        changed.wait(left)
    return found


class Work:
    """Where every ticket is. Its readers and writers hold `changed`."""

    def __init__(self, config: BrokerConfig) -> None:
        self.config = config
        self.changed = threading.Condition(threading.RLock())
        self.life = uuid.uuid4().hex
        self.epoch = ""
        self.tickets: dict[str, Ticket] = {}
        self.state: dict[str, str] = {}
        self.todo: dict[TicketStream, deque[str]] = {"train": deque(), "eval": deque()}
        self.leases: dict[str, float] = {}
        self.attempts: defaultdict[str, int] = defaultdict(int)
        self.failures: defaultdict[str, int] = defaultdict(int)
        self.failed_at: dict[str, str] = {}
        self.frames: dict[str, bytes] = {}
        self.queue: dict[str, QueueEntry] = {}
        self.claimed: set[str] = set()
        self.entries = 0
        self.dead: list[DeadLetter] = []

    def queued_bytes(self) -> int:
        """Of every frame in the queue."""
        return sum(entry.nbytes for entry in self.queue.values())

    def forget(self, uid: str) -> None:
        """This ticket, wherever it waits."""
        for table in (self.tickets, self.attempts, self.failures, self.failed_at):
            table.pop(uid, None)

    def drop(self, entry: QueueEntry) -> bool:
        """Take a group out of the queue; False if it is not there."""
        if self.queue.pop(entry.entry_id, None) is None:
            return False
        self.frames.pop(entry.gid, None)
        self.claimed.discard(entry.entry_id)
        return True

    def depths(self) -> dict[str, int]:
        """How many tickets and groups are where."""
        with self.changed:
            return {
                "todo": len(self.todo["train"]),
                "eval": len(self.todo["eval"]),
                "leased": len(self.leases),
                "queued": len(self.queue),
                "dead": len(self.dead),
                "bytes": self.queued_bytes(),
            }


class MemoryTickets(Tickets):
    """The learner's side, with the epoch of this learner's life."""

    def __init__(self, work: Work, leases: Leases) -> None:
        self._work = work
        self._leases = leases
        self._epoch = ""

    def open_epoch(self, epoch: str) -> None:
        with self._work.changed:
            self._epoch = self._work.epoch = epoch

    def confirm_epoch(self) -> None:
        with self._work.changed:
            self._fence()

    def issue(self, tickets: Sequence[Ticket]) -> list[IssueResult]:
        with self._work.changed:
            self._fence()
            results = [self._issue(ticket) for ticket in tickets]
            self._work.changed.notify_all()
        return results

    def _issue(self, ticket: Ticket) -> IssueResult:
        work = self._work
        state = work.state.get(ticket.uid, "")
        if state == "dead":
            return "dead"
        work.tickets[ticket.uid] = ticket
        if state.startswith("q:"):
            return "open"
        if ticket.uid in work.leases or ticket.uid in work.todo[ticket.stream]:
            return "open"
        work.todo[ticket.stream].append(ticket.uid)
        return "issued"

    def withdraw(self, uids: Iterable[str]) -> None:
        with self._work.changed:
            self._fence()
            for uid in uids:
                self._work.forget(uid)
                self._work.leases.pop(uid, None)
                for todo in self._work.todo.values():
                    if uid in todo:
                        todo.remove(uid)

    def open_tickets(self) -> set[str]:
        with self._work.changed:
            return set(self._work.tickets)

    def claim(self, count: int, wait_s: float) -> list[QueueEntry]:
        work = self._work

        def fresh() -> list[QueueEntry]:
            return [e for e in work.queue.values() if e.entry_id not in work.claimed][:count]

        with work.changed:
            entries = wait_for(work.changed, fresh, wait_s)
            work.claimed.update(e.entry_id for e in entries)
            return entries

    def pending(self) -> list[QueueEntry]:
        with self._work.changed:
            return [e for e in self._work.queue.values() if e.entry_id in self._work.claimed]

    def fetch(self, entry: QueueEntry) -> bytes | None:
        with self._work.changed:
            return self._work.frames.get(entry.gid)

    def settle(self, entries: Sequence[QueueEntry]) -> None:
        work = self._work
        with work.changed:
            self._fence()
            for entry in entries:
                if work.drop(entry) and work.state.get(entry.uid) == f"q:{entry.gid}":
                    del work.state[entry.uid]
                    work.forget(entry.uid)

    def reject(self, entry: QueueEntry, reason: str) -> None:
        work = self._work
        with work.changed:
            self._fence()
            if work.drop(entry):
                work.state.pop(entry.uid, None)
                work.leases[entry.uid] = 0.0
            self._leases.fail(entry.uid, entry.stream, entry.gid, reason)

    def dead_letters(self) -> list[DeadLetter]:
        with self._work.changed:
            return list(self._work.dead)

    def _fence(self) -> None:
        if self._epoch != self._work.epoch:
            raise FencedError(
                "another learner has taken over this run; this one stops without writing"
            )


class MemoryLeases(Leases):
    """A generator's side."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def lease(self, applied: Version) -> Lease | None:
        work = self._work
        with work.changed:
            uid = self._next(applied.n) if applied.epoch == work.epoch else None
            if uid is None:
                return None
            work.leases[uid] = time.monotonic() + work.config.lease_s
            work.attempts[uid] += 1
            return Lease(ticket=work.tickets[uid], attempt=work.attempts[uid])

    def _next(self, n: int) -> str | None:
        work, now = self._work, time.monotonic()
        for uid, deadline in sorted(work.leases.items(), key=lambda item: item[1]):
            if uid not in work.tickets:  # settled meanwhile by the push of another attempt
                del work.leases[uid]
            elif deadline <= now and work.tickets[uid].min_version <= n:
                return uid
        for todo in (work.todo["eval"], work.todo["train"]):
            while todo and todo[0] not in work.tickets:
                todo.popleft()
            if todo and work.tickets[todo[0]].min_version <= n:
                return todo.popleft()
        return None

    def renew(self, uids: Sequence[str]) -> None:
        with self._work.changed:
            for uid in uids:
                if uid in self._work.leases:
                    self._work.leases[uid] = time.monotonic() + self._work.config.lease_s

    def release(self, uid: str, stream: TicketStream) -> None:
        work = self._work
        with work.changed:
            if work.leases.pop(uid, None) is not None and uid in work.tickets:
                work.todo[stream].appendleft(uid)
                work.changed.notify_all()

    def push(self, group: Group) -> PushResult:
        work, frame = self._work, codec.encode_group(group)
        with work.changed:
            if group.uid in work.state or group.uid not in work.tickets:
                work.leases.pop(group.uid, None)
                return PushResult.DUPLICATE
            full = len(work.queue) >= work.config.max_groups
            if full or work.queued_bytes() + len(frame) > work.config.max_bytes:
                return PushResult.FULL
            work.entries += 1
            entry = QueueEntry(
                entry_id=f"{work.entries:012d}",
                gid=group.gid,
                uid=group.uid,
                stream=group.stream,
                nbytes=len(frame),
            )
            work.frames[group.gid] = frame
            work.queue[entry.entry_id] = entry
            work.state[group.uid] = f"q:{group.gid}"
            work.leases.pop(group.uid, None)
            work.changed.notify_all()
            return PushResult.OK

    def fail(
        self, uid: str, stream: TicketStream, attempt: str, reason: str, final: bool = False
    ) -> bool:
        work = self._work
        with work.changed:
            counted = work.failed_at.get(uid) == attempt
            if work.state.get(uid) == "dead":
                return counted
            if counted or uid in work.state or uid not in work.tickets:
                return False
            work.failed_at[uid] = attempt
            work.leases.pop(uid, None)
            work.failures[uid] += 1
            if final or work.failures[uid] >= work.config.max_attempts:
                work.state[uid] = "dead"
                work.dead.append(DeadLetter(uid=uid, stream=stream, reason=reason))
                del work.tickets[uid]
                return True
            if uid not in work.todo[stream]:
                work.todo[stream].append(uid)
            return False
