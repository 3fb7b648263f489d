"""The learner's side of a weight sync: find out who is there, send, wait until each has applied.

Consumes replies of generators; waits for each phase at most `phase_timeout_s`; unblocks generators that wait for
weights. The collective runs on a thread of its own, so a peer that hangs in it costs one deadline, not the run.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sppo.errors import WeightSyncError
from sppo.transport import codec
from sppo.transport.broker import Broker
from sppo.types import Member, Version
from sppo.weights.protocol import ANNOUNCE, RELEASE, TRANSFER, Reply, WeightSender

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """How one publication went; seconds."""

    version: Version
    members: tuple[str, ...]
    stage_s: float
    ready_s: float
    transfer_s: float

    @property
    def total_s(self) -> float:
        """The whole publication."""
        return self.stage_s + self.ready_s + self.transfer_s


class WeightPublisher:
    """Publishes versions to every live generator."""

    def __init__(self, broker: Broker, sender: WeightSender, *, phase_timeout_s: float) -> None:
        self._broker = broker
        self._sender = sender
        self._timeout = phase_timeout_s
        self._group: tuple[str, ...] = ()
        self._position = broker.tail("replies")

    def publish(self, version: Version, weights: Iterable[tuple[str, Tensor]]) -> SyncReport:
        """Bring every live generator to `version`.

        Raises WeightSyncError naming who was late, when no generator took part or a transfer failed.
        """
        sync = uuid.uuid4().hex
        started = time.monotonic()
        update = self._sender.stage(weights)
        staged = time.monotonic()
        members = {m.name: m for m in self._broker.members() if m.role == "generator"}
        if not members:
            raise WeightSyncError("no live generator to publish weights to; see the generator's log")
        self._send(ANNOUNCE, sync, version=str(version), members=sorted(members))
        ready = self._collect(sync, "ready", set(members))
        if not ready:
            self._send(RELEASE, sync)
            raise WeightSyncError(
                f"weight sync of {version}, phase ready: no answer from {', '.join(sorted(members))} "
                f"within {self._timeout:.0f} s"
            )
        if late := set(members) - ready:
            log.warning("weight sync of %s goes on without %s: not ready in time", version, ", ".join(sorted(late)))
        readied = time.monotonic()
        self._transfer(sync, version, [members[name] for name in sorted(ready)], update)
        return SyncReport(
            version=version,
            members=tuple(sorted(ready)),
            stage_s=staged - started,
            ready_s=readied - staged,
            transfer_s=time.monotonic() - readied,
        )

    def close(self) -> None:
        """Leave the group."""
        self._sender.close()

    def _transfer(self, sync: str, version: Version, members: list[Member], update: dict[str, Any]) -> None:
        names = tuple(m.name for m in members)
        join: dict[str, Any] | None = None
        offsets: dict[str, int] = {}
        if names != self._group:
            rank = 1
            for member in members:
                offsets[member.name] = rank
                rank += member.world_size
            join = self._sender.open(rank, self._timeout)
            self._group = ()
        self._send(TRANSFER, sync, version=str(version), members=list(names), join=join, offsets=offsets, update=update)

        def collective() -> None:
            if join is not None:
                self._sender.accept(self._timeout)
            self._sender.send(self._timeout)

        worker = _Thread(collective)
        deadline = time.monotonic() + self._timeout
        applied = self._collect(sync, "applied", set(names))
        error = worker.result(max(0.1, deadline - time.monotonic()))
        if error is not None or (late := set(names) - applied):
            self._group = ()
            who = ", ".join(sorted(late)) if error is None else f"the transfer itself: {error}"
            raise WeightSyncError(
                f"weight sync of {version}, phase applied, within {self._timeout:.0f} s: {who or 'unknown'}"
            )
        self._group = names

    def _collect(self, sync: str, phase: str, expected: set[str]) -> set[str]:
        """Members that answered this phase in time. Raises WeightSyncError when one answers with an error."""
        deadline = time.monotonic() + self._timeout
        seen: set[str] = set()
        while seen != expected and (left := deadline - time.monotonic()) > 0:
            for position, data in self._broker.receive("replies", self._position, min(left, 0.5)):
                self._position = position
                reply = Reply.unpack(data)
                if reply.sync != sync or reply.phase != phase:
                    continue  # an answer to an earlier sync that came too late
                if reply.error:
                    self._group = ()
                    raise WeightSyncError(f"weight sync, phase {phase}: {reply.member}: {reply.error}")
                seen.add(reply.member)
        return seen

    def _send(self, kind: str, sync: str, **fields: Any) -> None:
        self._broker.send("control", codec.pack({"kind": kind, "sync": sync, **fields}))


class _Thread:
    """One call on a daemon thread, so that a collective that never returns cannot keep the process alive."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True, name="weight-sync")
        self._thread.start()

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the caller by result()
            self._error = error

    def result(self, timeout_s: float) -> BaseException | None:
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return TimeoutError("still in the collective")
        return self._error
