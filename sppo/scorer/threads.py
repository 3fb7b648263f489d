"""Where rules of ours run: on a few threads of this process. They are short, and need no process of
their own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from sppo.errors import RoleDiedError, ScorerError, ScorerRefused
from sppo.types import ScoreRequest

THREADS = 8
Reply = Sequence[float] | Sequence[Sequence[float]]
Rule = Callable[[str, Sequence[str], Mapping[str, Any]], Reply]


class Threads:
    """Threads of its own: heartbeats and weight syncs must not queue behind a rule that is slow."""

    def __init__(self, rule: Rule, *, timeout_s: float) -> None:
        self._rule = rule
        self._timeout_s = timeout_s
        self._waiting: SimpleQueue[tuple[Future[Reply], Callable[[], Reply]] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._running: dict[object, float] = {}
        """Calls in hand, with the time at which each began."""

    async def score(self, request: ScoreRequest) -> Reply:
        """What the rule returns.

        Raises ScorerRefused with its error, which would come again; ScorerError when it is late,
        and that thread is lost; RoleDiedError once all of them are.
        """
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        call = object()

        def work() -> Reply:
            self._running[call] = time.monotonic()
            loop.call_soon_threadsafe(begun.set)
            try:
                return self._rule(request.question, list(request.completions), request.data)
            finally:
                del self._running[call]

        scoring = asyncio.wrap_future(self._submit(work))
        waiting = asyncio.ensure_future(begun.wait())
        either: set[asyncio.Future[Any]] = {waiting, scoring}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await scoring
        except TimeoutError:
            if self.fault is not None:
                raise self.fault from None
            raise ScorerError(self._late()) from None
        except Exception as error:
            raise ScorerRefused(f"{type(error).__name__}: {error}") from error

    @property
    def stuck(self) -> int:
        """Threads in a call that is late: nothing ends them but the end of this process."""
        now = time.monotonic()
        return sum(now - begun >= self._timeout_s for begun in list(self._running.values()))

    @property
    def fault(self) -> RoleDiedError | None:
        """Set once no thread is left."""
        if self.stuck < THREADS:
            return None
        return RoleDiedError(f"{self._late()}, and {THREADS} calls of it have not returned")

    def close(self) -> None:
        """Leave the threads; one that hangs is not waited for, here or at this process's end."""
        with suppress(Empty):
            while waiting := self._waiting.get_nowait():
                waiting[0].cancel()
        for _ in self._threads:
            self._waiting.put(None)

    def _submit(self, work: Callable[[], Reply]) -> Future[Reply]:
        if not self._threads:
            # Not an executor's: those are joined when the interpreter ends, and a rule may hang.
            self._threads = [Thread(target=self._serve, daemon=True) for _ in range(THREADS)]
            for thread in self._threads:
                thread.start()
        future: Future[Reply] = Future()
        self._waiting.put((future, work))
        return future

    def _serve(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            future, work = waiting
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                future.set_exception(error)

    def _late(self) -> str:
        return f"no answer within scorer.timeout_s = {self._timeout_s:g}"
