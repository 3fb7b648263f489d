"""Which calls of one scorer's process wait, and which go to it in one message.

A scorer that asked for batches gets as many groups as wait, up to `batch`, whenever it has nothing
in hand: nobody waits for a batch to fill. An async one is given full batches beside those in hand.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CONCURRENT = 256


@dataclass(slots=True, eq=False)
class Call:
    """One group that a process is asked about."""

    body: str
    """The request, as JSON."""
    limit_s: Callable[[], float]
    alone: bool = False
    """Whether it must be in a batch of its own."""
    begun_at: float | None = None
    """When the scorer was called; of an async one, when it said so."""
    answer: asyncio.Future[dict[str, Any]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def late_s(self) -> float:
        """Seconds beyond its limit; negative before."""
        if self.begun_at is None:
            return -1.0
        return time.monotonic() - self.begun_at - self.limit_s()


@dataclass(slots=True, eq=False)
class Message:
    """Calls that were handed over together."""

    id: int
    calls: list[Call]
    sent_at: float = field(default_factory=time.monotonic)
    cancelled: bool = False

    @property
    def open(self) -> list[Call]:
        """Calls for which somebody still waits."""
        return [call for call in self.calls if not call.answer.done()]

    def late_s(self) -> float:
        """Of the call that is latest."""
        return max((call.late_s() for call in self.calls), default=-1.0)


class Batches:
    """The calls of one process.

    batches.add(call)
    while message := batches.take(): ...    # to be sent
    message = batches.back(message.id)      # its answer came
    """

    def __init__(self, batch: int, *, concurrent: bool) -> None:
        self._batch = batch
        self._concurrent = concurrent
        self._ids = itertools.count()
        self._waiting: deque[Call] = deque()
        self.sent: dict[int, Message] = {}

    @property
    def slots(self) -> int:
        """Calls that may be in hand: of batches the next one gathers beside the one that is
        scored.
        """
        if self._concurrent:
            return max(CONCURRENT, 2 * self._batch)
        return 1 if self._batch == 1 else 2 * self._batch

    def add(self, call: Call) -> None:
        self._waiting.append(call)

    def take(self) -> Message | None:
        """The next calls to hand over, or None while they have to wait."""
        waiting = self._waiting
        while waiting and waiting[0].answer.done():
            waiting.popleft()
        full = self._concurrent and len(waiting) >= self._batch
        if not waiting or (self.sent and not full):
            return None
        calls = [waiting.popleft()]
        while waiting and len(calls) < self._batch and not (calls[0].alone or waiting[0].alone):
            call = waiting.popleft()
            if not call.answer.done():
                calls.append(call)
        message = Message(next(self._ids), calls)
        self.sent[message.id] = message
        return message

    def back(self, number: int) -> Message | None:
        """What was sent under this number, which is now answered."""
        return self.sent.pop(number, None)

    @property
    def waiting(self) -> list[Call]:
        """Calls that were not handed over yet."""
        return [call for call in self._waiting if not call.answer.done()]

    def all(self) -> list[Call]:
        """Every call in hand."""
        return [*self._waiting, *(call for message in self.sent.values() for call in message.calls)]

    def in_call_s(self) -> float:
        """Seconds since the oldest call in hand began; 0 if there is none."""
        begun = [call.begun_at for call in self.all() if call.begun_at is not None]
        return time.monotonic() - min(begun) if begun else 0.0
