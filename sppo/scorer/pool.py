"""The processes that run one scorer, and whose turn it is.

An async scorer has one process, which awaits many groups beside each other. Of others each
process scores one group at a time, or one batch (`ahead` says which has the next one in hand
already), and processes are added while groups wait: as many as share `MEMORY` (a model of that size
is loaded once), at most as many as there are cores if the calls compute, and `MOST` if they wait.

The deadline of a call begins when the scorer is called; waiting for a turn, importing the module
and `setup` do not count. The first call in a process may load a model: it has `LOAD_S` more, or
twice what the slowest first call took once there was one. That time is the process's: an async
scorer whose calls all fail has it once. A process is ended, with all that it started, when a call
is late or the role ends. When one dies with a single group in hand, that group is to blame; of
several each is asked about again, in a process where no other group is. So is each group of a batch
that failed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter, deque
from typing import Any

from sppo.errors import ConfigError, ScorerBusy, ScorerError, SppoError
from sppo.scorer import ahead
from sppo.scorer.ahead import Behind
from sppo.scorer.process import Apart, Late, Lost, ScorerProcess, Source
from sppo.types import ScoreRequest

log = logging.getLogger(__name__)

LOAD_S = 240.0
"""Longest import of a user's module, and what its first call may take beyond `scorer.timeout_s`, in
seconds.
"""
MEMORY = 1 << 30
MOST = 32
LIGHT = 8
"""Of a light process this many share `MEMORY`."""
LOOK_S = 0.2
CLOSE_S = 3.0
"""What a scorer's `close` may take, in seconds."""
START_TRIES = 3
START_AGAIN_S = 1.0


class Pool:
    """See the module's docstring. To be used from one event loop.

    pool = Pool("my_module:score", timeout_s=30)
    reply = await pool.score(request)
    pool.close()
    """

    def __init__(
        self, source: Source | str, *, timeout_s: float, output: int | None = None
    ) -> None:
        self._source = Source(name=source) if isinstance(source, str) else source
        self._timeout_s = timeout_s
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._processes: list[ScorerProcess] = []
        self._counted: Counter[str] = Counter()
        """By processes that have ended."""
        self._waiting: deque[asyncio.Future[ScorerProcess]] = deque()
        self._starting: asyncio.Task[None] | None = None
        self._first_call_s: float | None = None
        """What the slowest first call of a process took; None before there was one."""
        self._alone = asyncio.Lock()
        self._suspects: ScorerProcess | None = None
        """Scores groups, one at a time, that were in hand when a process died."""
        self._look_at = 0.0
        self._room = MOST
        """Processes that this machine has been found to have room for."""
        self.fault: SppoError | None = None
        """Why no process can be started."""

    @property
    def here(self) -> bool:
        """Whether this pool belongs to the event loop that runs."""
        return self._loop is asyncio.get_running_loop()

    def warm(self) -> None:
        """Begin to import the function before the first group comes."""
        if not self._processes and self._starting is None:
            self._starting = self._loop.create_task(self._add())

    def counters(self) -> dict[str, float]:
        """What the scorer counts itself, over all processes."""
        total = Counter(self._counted)
        for process in self._processes:
            total.update(process.counters)
        return dict(total)

    async def score(self, request: ScoreRequest, turn_s: float | None = None) -> Any:
        """What the scorer returns, see `calls.answer`.

        Raises ScorerError, or ScorerRefused where it would fail again; ScorerBusy if its turn has
        not come in `turn_s`; ConfigError if the function cannot be imported.
        """
        alone = False
        while True:
            process = await self._turn(turn_s)
            try:
                return await self._call(process, request, alone=alone)
            except Apart:
                alone = True
            except Behind:
                pass
            except Lost as lost:
                if lost.blame == "alone":
                    raise _died(lost) from None
                if lost.blame == "shared":
                    return await self._score_alone(request)
            finally:
                process.in_hand -= 1
                self._dispatch()

    def close(self) -> None:
        """End every process: at once, but for those of a scorer with a `close` of its own."""
        if self._starting is not None:
            self._starting.cancel()
        processes = [*self._processes, *([self._suspects] if self._suspects else [])]
        closing, until = [p for p in processes if p.close()], time.monotonic() + CLOSE_S
        while any(not p.child.fate() for p in closing) and time.monotonic() < until:
            time.sleep(LOOK_S / 20)
        for process in processes:
            process.end()
        self._processes.clear()

    async def _score_alone(self, request: ScoreRequest) -> Any:
        async with self._alone:
            if self._suspects is None or self._suspects.child.ended:
                self._suspects = await ScorerProcess.start(
                    self._source, limit_s=LOAD_S, output=self._output
                )
            try:
                return await self._call(self._suspects, request)
            except Lost as lost:
                raise _died(lost) from None

    async def _call(
        self, process: ScorerProcess, request: ScoreRequest, *, alone: bool = False
    ) -> Any:
        first, begun = process.answered == 0, time.monotonic()
        if first:  # another process may show that first calls are short
            self._loop.call_later(self._timeout_s, self._dispatch)
        try:
            return await process.call(request, lambda: self._limit_s(process), alone=alone)
        except Late:
            more = round(self._limit_s(process) - self._timeout_s)
            loading = f", and {more} s for what a first call loads" if more else ""
            raise ScorerError(
                f"no answer within scorer.timeout_s = {self._timeout_s:g}{loading}"
            ) from None
        finally:
            if first and process.answered:
                self._first_call_s = max(self._first_call_s or 0.0, time.monotonic() - begun)

    def _limit_s(self, process: ScorerProcess) -> float:
        limit_s = LOAD_S if self._first_call_s is None else 2 * self._first_call_s
        limit_s += self._timeout_s
        used_s = time.monotonic() - process.first_at if process.first_at else 0.0
        return self._timeout_s if process.answered or used_s > limit_s else limit_s

    async def _turn(self, turn_s: float | None) -> ScorerProcess:
        """A process with room for one more group, which is then in its hands; in the order of
        asking.
        """
        if self.fault is not None:
            raise type(self.fault)(str(self.fault))
        turn: asyncio.Future[ScorerProcess] = self._loop.create_future()
        self._waiting.append(turn)
        self._dispatch()
        try:
            async with asyncio.timeout(turn_s):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().in_hand -= 1
                self._dispatch()
            if isinstance(error, TimeoutError):
                raise ScorerBusy(
                    f"no process was free for {turn_s:g} s; {len(self._waiting)} groups wait"
                ) from None
            raise

    def _dispatch(self) -> None:
        """Give those who wait what is free; have another process started where that helps."""
        for gone in (p for p in self._processes if p.child.ended):
            self._counted.update(gone.counters)
        self._processes = [p for p in self._processes if not p.child.ended]
        while self._waiting:
            free = min(
                (p for p in self._processes if p.in_hand < p.slots),
                key=lambda p: p.in_hand,
                default=None,
            )
            if free is None:
                break
            turn = self._waiting.popleft()
            if not turn.done():
                free.in_hand += 1
                turn.set_result(free)
        self._waiting = deque(turn for turn in self._waiting if not turn.done())
        if self._waiting and self._starting is None:
            if self._would_help():
                self._starting = self._loop.create_task(self._add())
            else:
                ahead.give(self._processes, self._waiting)

    def _would_help(self) -> bool:
        """Whether another process may be started; looked at now and then, as it reads what each of
        them uses.
        """
        now = time.monotonic()
        if not self._processes:
            return True
        if now < self._look_at:
            return False
        enough = len(self._processes) >= self._most()
        self._look_at = now + LOOK_S if enough else 0.0
        return not enough

    def _most(self) -> int:
        if self._processes[0].concurrent:
            return 1
        room = MEMORY // max(1, *(p.child.resident() for p in self._processes))
        room = min(room, self._room)
        if self._first_call_s is None:
            # Loading, or hung? What holds little is not loading a model: another process may find
            # that calls are short.
            late = any(p.batches.in_call_s() > self._timeout_s for p in self._processes)
            return 2 if late and room >= LIGHT else 1
        idle = any(p.waits() for p in self._processes)
        return min(room, MOST if idle else len(os.sched_getaffinity(0)))

    async def _add(self) -> None:
        try:
            process = await self._start()
            self._processes.append(process)
        except SppoError as error:
            if self._processes:  # no room for another model, most likely
                self._room = len(self._processes)
                log.warning("going on with %d processes of the scorer: %s", self._room, error)
                return
            self.fault = error
            for turn in self._waiting:
                if not turn.done():
                    turn.set_exception(error)
            self._waiting.clear()
        finally:
            self._starting = None
            self._dispatch()

    async def _start(self) -> ScorerProcess:
        tries = 1
        while True:
            try:
                return await ScorerProcess.start(self._source, limit_s=LOAD_S, output=self._output)
            except ScorerError as error:  # it died: for want of memory, perhaps
                if tries == START_TRIES:
                    raise ConfigError(str(error)) from error
            tries += 1
            await asyncio.sleep(START_AGAIN_S)


def _died(lost: Lost) -> ScorerError:
    return ScorerError(f"its process {lost.why} while it scored this group")
