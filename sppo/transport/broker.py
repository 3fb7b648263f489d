"""The broker: what every role may ask of it.

    a generator's leases                        the learner's tickets (rank 0)
    --------------------                        ------------------------------
    lease(...)  -> Lease | None                 open_epoch(epoch)       fences every older learner
    renew(uids)                                 issue(tickets)          idempotent
    push(group) -> PushResult                   claim(n) / pending()    metadata of visible groups
    fail(uid, ...) / release(uid, ...)          fetch(entry)            the frame
                                                settle(entries)         after a durable checkpoint

    everyone: registry (who is there, who should stop) and mailbox (messages in channels)

A ticket is in exactly one of these places: `todo`, leased, queued (`q:<gid>`), dead, or gone
(settled or withdrawn). A lease may run twice; a group never counts twice, because the second push
of a ticket is dropped in the same atomic step that would show it, and so is the push of a ticket
that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Literal, Protocol

from sppo.types import DeadLetter, Group, Lease, Member, QueueEntry, Ticket, TicketStream, Version

HEARTBEAT_S = 1.0
"""How often a member shows that it lives."""
HEARTBEAT_TTL_S = 8.0
"""How long the registry believes it without another sign."""
LEARNER = "learner-0"
"""The learner's name in the registry."""

Channel = Literal["control", "replies", "metrics"]
IssueResult = Literal["issued", "open", "dead"]


class PushResult(Enum):
    """What became of a pushed group."""

    OK = "OK"
    DUPLICATE = "DUP"
    """Another attempt was first, or the ticket is closed: this group is dropped."""
    FULL = "FULL"
    """The queue is at its cap: renew the lease, wait, push again."""


class Tickets(Protocol):
    """The learner's side of the work. Every method may raise BrokerError, those that write also
    FencedError.
    """

    def open_epoch(self, epoch: str) -> None:
        """Take over the run: from now on calls of an older epoch are fenced."""

    def confirm_epoch(self) -> None:
        """Raises FencedError if another learner has taken over."""

    def issue(self, tickets: Sequence[Ticket]) -> list[IssueResult]:
        """Make tickets available, unless they are queued, leased, waiting or dead already.

        A ticket that was settled is opened again: the caller is the truth about what was trained.
        """

    def withdraw(self, uids: Iterable[str]) -> None:
        """Forget tickets that nobody will use; a late push of one is dropped."""

    def open_tickets(self) -> set[str]:
        """Uids of every ticket that is neither done nor dead."""

    def claim(self, count: int, wait_s: float) -> list[QueueEntry]:
        """New visible groups, oldest first; waits up to `wait_s` for the first."""

    def pending(self) -> list[QueueEntry]:
        """Groups claimed by this or an earlier learner and not settled."""

    def fetch(self, entry: QueueEntry) -> bytes | None:
        """The frame of a claimed group, or None if it is gone."""

    def settle(self, entries: Sequence[QueueEntry]) -> None:
        """End the claimed groups: their tickets and frames are deleted."""

    def reject(self, entry: QueueEntry, reason: str) -> None:
        """Drop a claimed group that cannot be used and have its ticket made again (or dead-letter
        it).
        """

    def dead_letters(self) -> list[DeadLetter]:
        """Every ticket given up so far, oldest first."""


class Leases(Protocol):
    """A generator's side of the work. Every method may raise BrokerError."""

    def lease(self, applied: Version) -> Lease | None:
        """A ticket that weights `applied` may begin: expired leases first, then evaluation, then
        training.
        """

    def renew(self, uids: Sequence[str]) -> None:
        """Prolong leases that are still held."""

    def release(self, uid: str, stream: TicketStream) -> None:
        """Hand a leased ticket of this stream back."""

    def push(self, group: Group) -> PushResult:
        """Store the group's frame and make it visible, ending the lease; safe to repeat."""

    def fail(
        self, uid: str, stream: TicketStream, attempt: str, reason: str, final: bool = False
    ) -> bool:
        """Report that this attempt failed; True if the ticket is a dead letter now, else it is
        offered again.

        It is given up after `broker.max_attempts` failures, or at once if `final`: it would fail
        again. Repeating the report of one attempt counts once.
        """


class Registry(Protocol):
    """Who is there, and who should finish. Every method may raise BrokerError."""

    def heartbeat(self, member: Member, ttl_s: float) -> None:
        """Announce a live member; it is gone `ttl_s` after its last heartbeat."""

    def leave(self, name: str) -> None:
        """Take a member out of the registry at once."""

    def members(self) -> list[Member]:
        """Live members, by name."""

    def request_stop(self, audience: str, reason: str) -> None:
        """Ask the `learner`, its `workers`, or one member by name to finish cleanly; an empty
        reason takes it back.

        At the end of a run the learner goes first: its last weight sync and its checkpoint need the
        others.
        """

    def stop_reason(self, *audiences: str) -> str:
        """Why one of these should stop, or an empty text."""


class Mailbox(Protocol):
    """Messages between roles, each channel in its order. Every method may raise BrokerError."""

    def send(self, channel: Channel, message: bytes) -> None:
        """Append a message."""

    def tail(self, channel: Channel) -> str:
        """Position after the newest message."""

    def receive(self, channel: Channel, after: str, wait_s: float) -> list[tuple[str, bytes]]:
        """Messages after a position, with their positions; waits up to `wait_s` for the first."""


class GeneratorSide(Protocol):
    """What a generator uses of its connection."""

    leases: Leases
    registry: Registry
    mailbox: Mailbox


class Broker(GeneratorSide, Protocol):
    """A connection to one run on one server."""

    run_key: str
    """Names the run's keys on the server."""
    tickets: Tickets

    def ping(self) -> str:
        """Identity of the server's life. It changes when the server restarts and may have lost its
        newest writes.
        """

    def depths(self) -> dict[str, int]:
        """How many tickets and groups are where: todo, eval, leased, queued, dead; and bytes
        queued.
        """

    def close(self) -> None:
        """Release connections."""
