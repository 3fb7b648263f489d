"""The parent's side of a process that runs a scorer: starts it, asks it, ends it with all
that it started.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sppo.errors import ConfigError, ScorerError, ScorerRefused, ScorerSpent
from sppo.scorer import worker
from sppo.scorer.batches import Batches, Call, Message
from sppo.scorer.child import Child
from sppo.types import ScoreRequest

POLL_S = 0.1
CANCEL_S = 2.0
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


class Apart(Exception):  # noqa: N818 - caught in the pool
    """The batch in which this group was failed: it is to be asked about by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which scorer a process runs."""

    name: str
    """As the configuration names it."""
    target: str = ""
    """Its import string, where that is another."""
    options: Mapping[str, Any] = field(default_factory=dict)


class ScorerProcess:
    """One process. To be used from one event loop.

    process = await ScorerProcess.start(Source(name="my_module:score"), limit_s=60)
    reply = await process.call(request, limit_s=lambda: 30.0)
    process.end()
    """

    def __init__(self, source: Source, child: Child) -> None:
        self._source = source
        self.child = child
        self.batches = Batches(1, concurrent=False)
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._used_before = 0.0
        self._closes = False
        self.concurrent = False
        """Whether the scorer is async."""
        self.in_hand = 0
        """Groups given to it; kept by the pool."""
        self.answered = 0
        self.first_at: float | None = None
        """When it was first called."""
        self.counters: dict[str, float] = {}
        """What the scorer said last of what it counts."""
        self.busy_s = 0.0
        """Seconds spent in calls, over all of them."""

    @classmethod
    async def start(
        cls, source: Source, *, limit_s: float, output: int | None = None
    ) -> ScorerProcess:
        """A process that has imported the scorer and set it up.

        What it prints goes to the descriptor `output`, or where this process prints. Raises
        ConfigError if the scorer cannot be had within `limit_s`, ScorerError if the process dies of
        it.
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
        process = cls(source, Child(popen))
        try:
            await process._meet(ours, limit_s)
        except BaseException:
            process.end()
            raise
        return process

    async def _meet(self, channel: socket.socket, limit_s: float) -> None:
        reader, self._writer = await asyncio.open_connection(sock=channel)
        source, where = self._source, f"scorer.name = {self._source.name!r}"
        _send(self._writer,
            {"name": source.name, "target": source.target or source.name,
             "options": dict(source.options), "path": sys.path}
        )  # fmt: skip
        try:
            async with asyncio.timeout(limit_s):
                hello = await _message(reader)
        except TimeoutError:
            raise ConfigError(
                f"{where} could not be imported and set up within {limit_s:.0f} s"
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            why = await self._exit()
            raise ScorerError(f"{where}: the process that was to import it {why}") from None
        if "error" in hello:
            said = {"options": "", "setup": f"{where}: setup failed: "}
            head = said.get(hello["where"], f"{where} cannot be imported: ")
            raise ConfigError(head + hello["error"])
        self.concurrent = bool(hello["concurrent"])
        self.batches = Batches(int(hello["batch"]), concurrent=self.concurrent)
        self._closes = bool(hello["closes"])
        self._used_before = self.child.cpu_s()
        self._reading = asyncio.create_task(self._read(reader))

    @property
    def slots(self) -> int:
        """Groups that it may have in hand at a time."""
        return self.batches.slots

    async def call(
        self, request: ScoreRequest, limit_s: Callable[[], float], *, alone: bool = False
    ) -> Any:
        """What the scorer returns, see `calls.answer`. `limit_s` is asked again while the call
        lasts; `alone` keeps it out of a batch with others.

        Raises ScorerError or ScorerRefused with the scorer's own error, Late, Apart, or Lost when
        the process has ended.
        """
        call = Call(_body(request), limit_s, alone)
        self.batches.add(call)
        asyncio.get_running_loop().call_soon(self._hand_over)  # with others of this moment
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            answer = await call.answer
        except asyncio.CancelledError:
            self._drop(call)
            raise
        if "reply" in answer:
            return answer["reply"]
        kind = ScorerRefused if answer.get("final") else ScorerError
        raise (ScorerSpent if answer.get("spent") else kind)(str(answer.get("error")))

    def _hand_over(self) -> None:
        """Send what may be sent."""
        while not self.child.ended and (message := self.batches.take()):
            self.first_at = self.first_at or message.sent_at
            if not self.concurrent:
                _begin(message.calls)
            bodies = ", ".join(call.body for call in message.calls)
            _write(self._writer, f'{{"id": {message.id}, "requests": [{bodies}]}}')

    async def _watch(self) -> None:
        """While calls are in hand: see to it that none is late, and that the process lives."""
        while self.batches.all():
            await asyncio.sleep(POLL_S)
            if fate := self.child.fate():
                self._lose(fate)
                return
            for message in list(self.batches.sent.values()):
                late_s = message.late_s()
                if late_s > 0 and self.concurrent and not message.cancelled:
                    message.cancelled = True
                    _send(self._writer, {"cancel": message.id})  # the other groups go on
                elif late_s > (CANCEL_S if self.concurrent else 0.0):
                    _late(message)
                    self._lose("was ended", innocent=True)
                    return

    def _drop(self, call: Call) -> None:
        """Nobody waits for this call any more."""
        for message in self.batches.sent.values():
            if call in message.calls and not message.open and not self.child.ended:
                if self.concurrent:
                    _send(self._writer, {"cancel": message.id})
                else:
                    self.end()
                return

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                answer = await _message(reader)
                if "begun" in answer:
                    _begin(self.batches.sent[answer["id"]].calls)
                    continue
                if "alive" in answer:
                    _begin(call for call in self.batches.all() if call.begun_at is not None)
                    continue
                self.counters = _numbers(answer.get("counters", self.counters))
                if message := self.batches.back(answer["id"]):
                    self._answered(message, answer)
                self._hand_over()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, KeyError, TypeError):
            self._lose(await self._exit())

    def _answered(self, message: Message, answer: dict[str, Any]) -> None:
        """Give each of the calls its answer."""
        self.busy_s += time.monotonic() - message.sent_at
        answers = answer.get("answers") or [answer] * len(message.calls)
        if any("reply" in each for each in answers):
            if not self.answered:  # what the calls beside it waited for, a model perhaps, is there
                _begin(call for call in self.batches.all() if call.begun_at is not None)
            self.answered += 1
        elif self.answered or not self.concurrent:
            self.answered += 1  # an async scorer that only failed may still be loading
        if message.cancelled:
            _late(message)
        elif "answers" not in answer and len(message.calls) > 1:
            for call in message.open:
                call.answer.set_exception(Apart())
        for call, each in zip(message.calls, answers, strict=True):
            if not call.answer.done():
                call.answer.set_result(each)

    async def _exit(self) -> str:
        """How the process ended, in words; one that closed its end and lives on is ended."""
        for _ in range(_EXIT_POLLS):
            if self.child.fate():
                break
            await asyncio.sleep(POLL_S / 5)
        fate = self.child.fate() or "closed its connection"
        self.end()
        return fate

    def _lose(self, why: str, *, innocent: bool = False) -> None:
        """End what is left of the process, and tell those who wait."""
        waiting = [call for call in self.batches.all() if not call.answer.done()]
        begun = [call for call in waiting if call.begun_at is not None]
        self.end()
        for call in waiting:
            blame: Literal["alone", "shared", "none"] = "none"
            if not innocent and call in begun:
                blame = "alone" if len(begun) == 1 else "shared"
            call.answer.set_exception(Lost(why, blame))

    def close(self) -> bool:
        """Have the scorer close what it has opened; whether it does, and then ends by itself."""
        if not self._closes or self.child.ended or self.batches.all():
            return False
        _send(self._writer, {"close": True})
        return True

    def end(self) -> None:
        """Kill the process and all that it started. May be repeated."""
        if self.child.ended:
            return
        for task in (self._reading, self._watching):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        if self._writer is not None:
            self._writer.close()
        self.child.end()

    def waits(self) -> bool:
        """Whether its calls so far mostly waited, for a network or a child, rather than
        computed.
        """
        return self.busy_s > ENOUGH_S and self.child.cpu_s() - self._used_before < self.busy_s / 2


def _body(request: ScoreRequest) -> str:
    """As the process gets it. Raises ScorerRefused for what cannot be sent."""
    try:
        return json.dumps(
            {
                "uid": request.uid,
                "question": request.question,
                "completions": list(request.completions),
                "data": dict(request.data),
                "messages": list(request.messages),
                "finish_reasons": list(request.finish_reasons),
                "lengths": list(request.lengths),
                "versions": list(request.versions),
            }
        )
    except (TypeError, ValueError) as error:
        raise ScorerRefused(
            f"the group cannot be written as JSON, in which a scorer gets it: {error}"
        ) from error


def _begin(calls: Iterable[Call]) -> None:
    """Their time runs from now."""
    for call in calls:
        call.begun_at = time.monotonic()


def _late(message: Message) -> None:
    """Of a batch nobody knows who was slow."""
    for call in message.open:
        call.answer.set_exception(Late() if len(message.calls) == 1 else Apart())


def _send(writer: asyncio.StreamWriter | None, message: Mapping[str, Any]) -> None:
    _write(writer, json.dumps(message))


def _write(writer: asyncio.StreamWriter | None, text: str) -> None:
    assert writer is not None
    body = text.encode()
    writer.write(len(body).to_bytes(worker.LENGTH, "big") + body)


async def _message(reader: asyncio.StreamReader) -> dict[str, Any]:
    size = int.from_bytes(await reader.readexactly(worker.LENGTH), "big")
    if size > LONGEST_MESSAGE:
        raise ValueError(f"a message of {size} bytes")
    message: dict[str, Any] = json.loads(await reader.readexactly(size))
    return message


def _numbers(counters: Any) -> dict[str, float]:
    """What can be added up; a user's scorer may count other things too."""
    return {
        str(name): value
        for name, value in dict(counters).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
