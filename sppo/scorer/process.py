"""The parent's side of a process that runs a user's function: starts it, asks it, ends it with all
that it started.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sppo.errors import ConfigError, ScorerError, ScorerRefused
from sppo.scorer import worker
from sppo.scorer.child import Child
from sppo.types import ScoreRequest

POLL_S = 0.1
CANCEL_S = 2.0
CONCURRENT = 64
LONGEST_MESSAGE = 64 << 20
ENOUGH_S = 0.2
"""Seconds of calls after which it can be told whether they compute."""
_EXIT_POLLS = 10


class Late(Exception):  # noqa: N818 - caught in the pool
    """A call that took longer than it may, and was ended."""


class Lost(Exception):  # noqa: N818 - caught in the pool
    """The process ended with this group in hand.

    `blame` is `alone` if no other group was, `shared` if others were, `none` if this group cannot
    have been the cause.
    """

    def __init__(self, why: str, blame: Literal["alone", "shared", "none"]) -> None:
        super().__init__(why)
        self.why = why
        self.blame = blame


@dataclass(slots=True)
class _Call:
    begun_at: float | None
    """When the function was called; None while an async one waits for its event loop."""
    answer: asyncio.Future[dict[str, Any]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class ScorerProcess:
    """One process. To be used from one event loop.

    process = await ScorerProcess.start("my_module:score", limit_s=60)
    reply = await process.call(request, limit_s=lambda: 30.0)
    process.end()
    """

    def __init__(self, name: str, child: Child) -> None:
        self._name = name
        self.child = child
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count()
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._used_before = 0.0
        self.concurrent = False
        """Whether the function is async."""
        self.in_hand = 0
        """Groups given to it; kept by the pool."""
        self.answered = 0
        self.busy_s = 0.0
        """Seconds spent in calls, over all of them."""

    @classmethod
    async def start(cls, name: str, *, limit_s: float, output: int | None = None) -> ScorerProcess:
        """A process that has imported the function `name` (`module:function`).

        What it prints goes to the descriptor `output`, or where this process prints. Raises
        ConfigError if the function cannot be imported within `limit_s`, ScorerError if the process
        dies of it.
        """
        ours, theirs = socket.socketpair()
        # -P: neither this folder nor the current one shadows a module of the standard library while
        # it starts.
        popen = subprocess.Popen(
            [sys.executable, "-P", str(Path(worker.__file__)), str(theirs.fileno()),
             str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[theirs.fileno()],
            start_new_session=True,
        )  # fmt: skip
        theirs.close()
        process = cls(name, Child(popen))
        try:
            await process._meet(ours, limit_s)
        except BaseException:
            process.end()
            raise
        return process

    async def _meet(self, channel: socket.socket, limit_s: float) -> None:
        reader, self._writer = await asyncio.open_connection(sock=channel)
        self._send({"name": self._name, "path": sys.path})
        try:
            async with asyncio.timeout(limit_s):
                hello = await _message(reader)
        except TimeoutError:
            raise ConfigError(
                f"scorer.name = {self._name!r} could not be imported within {limit_s:.0f} s"
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            why = await self._exit()
            raise ScorerError(
                f"scorer.name = {self._name!r}: the process that was to import it {why}"
            ) from None
        if "error" in hello:
            raise ConfigError(f"scorer.name = {self._name!r} cannot be imported: {hello['error']}")
        self.concurrent = bool(hello["concurrent"])
        self._used_before = self.child.cpu_s()
        self._reading = asyncio.create_task(self._read(reader))

    @property
    def slots(self) -> int:
        """Groups that it may have in hand at a time."""
        return CONCURRENT if self.concurrent else 1

    async def call(self, request: ScoreRequest, limit_s: Callable[[], float]) -> list[Any]:
        """What the function returns, as floats or rows of floats. `limit_s` is asked again while
        the call lasts.

        Raises ScorerError or ScorerRefused with the function's own error, Late, or Lost when the
        process has ended.
        """
        number, started = next(self._numbers), time.monotonic()
        call = self._calls[number] = _Call(begun_at=None if self.concurrent else started)
        question = {
            "question": request.question,
            "completions": list(request.completions),
            "data": dict(request.data),
        }
        try:
            self._ask(number, question)
            await self._wait(number, call, limit_s)
            answer = call.answer.result()
        except asyncio.CancelledError:
            self._drop(number)
            raise
        finally:
            del self._calls[number]
            self.busy_s += time.monotonic() - started
        if "reply" in answer or self.answered or not self.concurrent:
            self.answered += 1  # an async function that only failed may still be loading
        if "reply" in answer:
            return list(answer["reply"])
        kind = ScorerRefused if answer.get("final") else ScorerError
        raise kind(str(answer.get("error")))

    async def _wait(self, number: int, call: _Call, limit_s: Callable[[], float]) -> None:
        """Until there is an answer. Raises Late."""
        cancelled = False
        while not call.answer.done():
            await asyncio.wait({call.answer}, timeout=POLL_S)
            if call.answer.done():
                break
            if fate := self.child.fate():
                self._lose(fate)
                break
            late_s = -1.0 if call.begun_at is None else time.monotonic() - call.begun_at - limit_s()
            if late_s > 0 and self.concurrent and not cancelled:
                cancelled = True
                self._send({"cancel": number})  # the other groups go on
            elif late_s > (CANCEL_S if self.concurrent else 0.0):
                call.answer.cancel()
                self._lose("was ended", culprit=number)
                raise Late
        if cancelled:
            raise Late

    def _ask(self, number: int, question: Mapping[str, Any]) -> None:
        try:
            self._send({"id": number, **question})
        except (TypeError, ValueError) as error:
            raise ScorerRefused(
                f"the group cannot be written as JSON, in which a scorer gets it: {error}"
            ) from error

    def _drop(self, number: int) -> None:
        """Nobody waits for this call any more."""
        if not self.concurrent:
            self.end()
        elif not self.child.ended:
            self._send({"cancel": number})

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = await _message(reader)
                call = self._calls.get(message["id"])
                if call is None or call.answer.done():
                    continue
                if "begun" in message:
                    call.begun_at = time.monotonic()
                else:
                    if "reply" in message and not self.answered:
                        _begin_again(self._calls.values())
                    call.answer.set_result(message)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, KeyError, TypeError):
            self._lose(await self._exit())

    async def _exit(self) -> str:
        """How the process ended, in words; one that closed its end and lives on is ended."""
        for _ in range(_EXIT_POLLS):
            if self.child.fate():
                break
            await asyncio.sleep(POLL_S / 5)
        fate = self.child.fate() or "closed its connection"
        self.end()
        return fate

    def _lose(self, why: str, culprit: int | None = None) -> None:
        """End what is left of the process, and tell those who wait."""
        waiting = {n: c for n, c in self._calls.items() if not c.answer.done()}
        begun = [n for n, c in waiting.items() if c.begun_at is not None]
        self.end()
        for number, call in waiting.items():
            blame: Literal["alone", "shared", "none"] = "none"
            if culprit is None and number in begun:
                blame = "alone" if len(begun) == 1 else "shared"
            call.answer.set_exception(Lost(why, blame))

    def end(self) -> None:
        """Kill the process and all that it started. May be repeated."""
        if self.child.ended:
            return
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()
        self.child.end()

    def in_call_s(self) -> float:
        """Seconds since the oldest call in hand began; 0 if there is none."""
        begun = [call.begun_at for call in self._calls.values() if call.begun_at is not None]
        return time.monotonic() - min(begun) if begun else 0.0

    def waits(self) -> bool:
        """Whether its calls so far mostly waited, for a network or a child, rather than
        computed.
        """
        return self.busy_s > ENOUGH_S and self.child.cpu_s() - self._used_before < self.busy_s / 2

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._writer is not None
        body = json.dumps(message).encode()
        self._writer.write(len(body).to_bytes(worker.LENGTH, "big") + body)


def _begin_again(calls: Iterable[_Call]) -> None:
    """At the first reply: what the calls beside it waited for, a model perhaps, is there now."""
    for call in calls:
        if call.begun_at is not None:
            call.begun_at = time.monotonic()


async def _message(reader: asyncio.StreamReader) -> dict[str, Any]:
    size = int.from_bytes(await reader.readexactly(worker.LENGTH), "big")
    if size > LONGEST_MESSAGE:
        raise ValueError(f"a message of {size} bytes")
    message: dict[str, Any] = json.loads(await reader.readexactly(size))
    return message
