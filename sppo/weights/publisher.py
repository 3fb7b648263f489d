"""The learner's side of a weight sync: find out who is there, send, wait until each has applied.

Consumes replies of generators; waits for each phase at most `phase_timeout_s`, in a transfer for
each bucket; unblocks generators that wait for weights. A member that is late, dead or failing costs
one deadline: the sync goes on with the others, in a new group if the transfer had begun, and waits
for a newcomer when nobody is left. The collective runs on a thread of its own, so a peer that hangs
in it cannot hold the learner.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sppo.errors import WeightSyncError
from sppo.faults import point
from sppo.transport import codec
from sppo.transport.broker import Mailbox, Registry
from sppo.types import Member, Version
from sppo.weights.protocol import ANNOUNCE, RELEASE, TRANSFER, Reply, WeightSender

log = logging.getLogger(__name__)

TRANSFERS = 5
"""Failed transfers of one version after which the learner gives up."""
MEMBER_SHARE = 0.6
"""A rank gives up when nothing moved for this share of the phase's deadline, so that its answer
comes before the deadline is over.
"""
WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """How one publication went; seconds."""

    version: Version
    members: tuple[str, ...]
    stage_s: float
    ready_s: float
    """Waiting for members, and for attempts that failed."""
    transfer_s: float
    alone_s: float = 0.0
    """Of `ready_s`: no generator was alive."""
    failures: tuple[str, ...] = ()
    """What went wrong on the way, with phase and members."""

    @property
    def total_s(self) -> float:
        """The whole publication."""
        return self.stage_s + self.ready_s + self.transfer_s


class WeightPublisher:
    """Publishes versions to every live generator."""

    def __init__(
        self,
        registry: Registry,
        mailbox: Mailbox,
        sender: WeightSender,
        *,
        phase_timeout_s: float,
        alone_timeout_s: float = 600.0,
    ) -> None:
        self._registry = registry
        self._mailbox = mailbox
        self._sender = sender
        self._timeout = phase_timeout_s
        self._alone_timeout = alone_timeout_s
        self._group: tuple[tuple[str, str], ...] = ()
        """(name, life) of the members of the standing group."""
        self._evicted: dict[tuple[str, str], float] = {}
        """(name, life) of members left out, with what their heartbeat said then."""
        self._position = mailbox.tail("replies")

    def publish(
        self,
        version: Version,
        weights: Iterable[tuple[str, Tensor]],
        *,
        while_alone: Callable[[], None] | None = None,
    ) -> SyncReport:
        """Bring every live generator to `version`.

        With nobody there it waits up to `alone_timeout_s`, calling `while_alone` twice a second,
        which may raise to end the wait. Raises WeightSyncError naming phase and members when that
        time is over, at once without `while_alone`, and after `TRANSFERS` failed transfers.
        """
        started = time.monotonic()
        update = self._sender.stage(weights)
        staged = time.monotonic()
        failures: list[str] = []
        self._late: list[str] = []
        self._alone_s = 0.0
        while True:
            try:
                members = self._gather(version, while_alone)
            except WeightSyncError as error:
                raise WeightSyncError("; ".join([*failures, str(error)])) from None
            readied = time.monotonic()
            failure = self._transfer(version, members, update)
            if not failure:
                break
            failures.append(failure)
            log.warning("weight sync of %s: %s", version, failure)
            if len(failures) == TRANSFERS:
                raise WeightSyncError(
                    f"weight sync of {version} failed {TRANSFERS} times: {'; '.join(failures)}"
                )
            if while_alone is not None:
                while_alone()
        return SyncReport(
            version=version,
            members=tuple(m.name for m in members),
            stage_s=staged - started,
            ready_s=readied - staged,
            transfer_s=time.monotonic() - readied,
            alone_s=self._alone_s,
            failures=tuple(self._late + failures),
        )

    def close(self) -> None:
        """Leave the group."""
        self._sender.close()

    # who takes part -------------------------------------------------------------------------------
    def _gather(self, version: Version, while_alone: Callable[[], None] | None) -> list[Member]:
        """Members that are paused and ready, by name; `self._sync` is the name of this attempt."""
        last = ""
        deadline = time.monotonic() + self._alone_timeout
        while True:
            self._sync = uuid.uuid4().hex
            members = self._candidates()
            if members:
                self._send(ANNOUNCE, version=str(version), members=sorted(members))
                point("learner.sync.announced")
                ready, errors = self._collect("ready", members)
                late = sorted(set(members) - ready)
                if late:
                    what = ", ".join(
                        f"{members[name].where} ({errors[name]})"
                        if name in errors
                        else members[name].where
                        for name in late
                    )
                    last = f"phase ready: no answer from {what} within {self._timeout:.0f} s"
                    log.warning("weight sync of %s, %s", version, last)
                    self._late.append(last)
                    self._evict(members[name] for name in late)
                if ready:
                    return [members[name] for name in sorted(ready)]
                self._send(RELEASE)
            if while_alone is None or time.monotonic() > deadline:
                raise WeightSyncError(
                    f"weight sync of {version}, "
                    f"{last or 'no live generator to publish weights to'}; "
                    "see the generators' logs"
                )
            if not last:
                last = "no generator is alive"
                log.warning("weight sync of %s waits: no generator is alive", version)
            alone = time.monotonic()
            while_alone()
            time.sleep(WAIT_S)
            self._alone_s += time.monotonic() - alone

    def _candidates(self) -> dict[str, Member]:
        """Live generators by name, without those that were evicted and have given no sign of life
        since.
        """
        found = {}
        for member in self._generators():
            before = self._evicted.get((member.name, member.life))
            if before is None or member.ready_s > before:
                self._evicted.pop((member.name, member.life), None)
                found[member.name] = member
        return found

    def _generators(self) -> list[Member]:
        return [m for m in self._registry.members() if m.role == "generator"]

    def _evict(self, members: Iterable[Member]) -> None:
        now = {(m.name, m.life): m.ready_s for m in self._generators()}
        for member in members:
            key = (member.name, member.life)
            self._evicted[key] = now.get(key, member.ready_s)

    # the transfer ---------------------------------------------------------------------------------
    def _transfer(self, version: Version, members: Sequence[Member], update: dict[str, Any]) -> str:
        """Send to these members; returns what went wrong, or an empty text."""
        names = [m.name for m in members]
        lives = tuple((m.name, m.life) for m in members)
        join: dict[str, Any] | None = None
        offsets: dict[str, int] = {}
        if lives != self._group:
            rank = 1
            for member in members:
                offsets[member.name] = rank
                rank += member.world_size
            join = self._sender.open(rank, MEMBER_SHARE * self._timeout)
            self._group = ()
        self._send(
            TRANSFER, version=str(version), members=names, join=join, offsets=offsets, update=update
        )
        point("learner.sync.sent")
        worker = _Thread()
        worker.start(self._sender.transfer(meet=join is not None, moved=worker.moved))
        applied, errors = self._collect("applied", {m.name: m for m in members}, worker)
        error = worker.result(self._timeout if applied == set(names) else 0.1)
        if not error and applied == set(names):
            self._group = lives
            point("learner.sync.applied")
            return ""
        self._group = ()
        self._sender.close()
        silent = [m for m in members if m.name not in applied and m.name not in errors]
        self._evict(silent)
        parts = [f"{m.where}: {errors[m.name]}" for m in members if m.name in errors]
        late = f"did not answer within {self._timeout:.0f} s of what moved last"
        parts += [f"{m.where} {late}" for m in silent]
        parts += [f"the learner's end: {error}"] if error else []
        return "phase applied: " + "; ".join(parts)

    def _collect(
        self, phase: str, expected: dict[str, Member], worker: _Thread | None = None
    ) -> tuple[set[str], dict[str, str]]:
        """(members that completed this phase in time, errors of those that reported one).

        A member whose registration lapses, or whose name has passed on to another life, is not
        waited for. When the learner's end of the transfer fails the group is closed; while it
        moves, the deadline does too.
        """
        begun = time.monotonic()
        done: set[str] = set()
        errors: dict[str, str] = {}
        waiting = set(expected)
        while waiting:
            moved = begun if worker is None else worker.moved_s
            if (left := moved + self._timeout - time.monotonic()) <= 0:
                break
            for position, data in self._mailbox.receive(
                "replies", self._position, min(left, WAIT_S)
            ):
                self._position = position
                reply = Reply.unpack(data)
                if reply.sync != self._sync or reply.phase != phase or reply.member not in waiting:
                    continue  # an answer to an earlier attempt that came too late
                waiting.discard(reply.member)
                if reply.error:
                    errors[reply.member] = reply.error
                else:
                    done.add(reply.member)
            if worker is not None and worker.failed:
                self._sender.close()  # members that wait in it learn of it, if gloo lets them
            if waiting:
                lives = {m.name: m.life for m in self._generators()}
                waiting = {name for name in waiting if lives.get(name) == expected[name].life}
        return done, errors

    def _send(self, kind: str, **fields: Any) -> None:
        self._mailbox.send("control", codec.pack({"kind": kind, "sync": self._sync, **fields}))


class _Thread:
    """One call on a daemon thread, so that a collective that never returns cannot keep the process
    alive.
    """

    def __init__(self) -> None:
        self._error = ""
        self.moved()

    def moved(self) -> None:
        """It goes on."""
        self.moved_s = time.monotonic()

    def start(self, call: Callable[[], None]) -> None:
        """Begin."""
        self._thread = threading.Thread(
            target=self._run, args=(call,), daemon=True, name="weight-sync"
        )
        self._thread.start()

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the caller by result()
            # As text: the error's traceback would keep the group and so its connections open.
            self._error = f"{type(error).__name__}: {error}"

    @property
    def failed(self) -> bool:
        """Whether it has ended with an error."""
        return bool(self._error)

    def result(self, timeout_s: float) -> str:
        """What went wrong, or an empty text."""
        self._thread.join(timeout_s)
        return "still in the collective" if self._thread.is_alive() else self._error
