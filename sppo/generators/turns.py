"""An engine that sleeps while the learner has the GPU that they share (`launch.take_turns`).

Waits for the learner's wish; finishes what is being sampled and begins nothing new; sleeps, so that
weights and cache take none of the GPU; wakes when the learner has let go of it. Tickets stay in
hand meanwhile and their leases are renewed. It never sleeps within a weight sync.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sppo.generators.engine import Engine
from sppo.turns import LOOK_S, Turns
from sppo.types import Completion, SamplingParams, Version
from sppo.weights.protocol import unheard

log = logging.getLogger(__name__)


class Sleeper(Engine, Protocol):
    """An engine that can give its memory back; nothing is being sampled then."""

    async def sleep(self) -> None:
        """Take no more of the GPU than must be."""

    async def wake(self) -> None:
        """As before, with the weights of before."""


class TakesTurns:
    """See `sppo.generators.engine.Engine`: this is one, around another."""

    def __init__(self, engine: Sleeper, turns: Turns) -> None:
        self._engine = engine
        self._turns = turns
        self._open = asyncio.Event()
        """Whether sampling may begin."""
        self._sampling = 0
        self._still = asyncio.Lock()
        """Held by a weight sync from pause to resume, and while it sleeps."""
        self._paused = False
        self._following: asyncio.Task[None] | None = None

    @property
    def world_size(self) -> int:
        """See `WeightTarget.world_size`."""
        return self._engine.world_size

    async def start(self) -> None:
        """Wait for a turn, and start the engine in it."""
        await self._enter()
        with self._turns.kept_by_engine():
            await self._engine.start()
        self._open.set()
        self._following = asyncio.create_task(self._follow())

    async def sample(
        self, prompt_ids: Sequence[int], sampling: SamplingParams, request_id: str
    ) -> list[Completion]:
        """See `Engine.sample`; begins in a turn of this engine."""
        while not self._open.is_set():
            await self._open.wait()
        self._sampling += 1
        try:
            return await self._engine.sample(prompt_ids, sampling, request_id)
        finally:
            self._sampling -= 1

    async def pause(self) -> None:
        """See `WeightTarget.pause`; waits for an engine that is asleep to wake."""
        if not self._paused:
            await self._still.acquire()
            self._paused = True
        await self._engine.pause()

    async def resume(self) -> None:
        """See `WeightTarget.resume`."""
        await self._engine.resume()
        if self._paused:
            self._paused = False
            self._still.release()

    async def join_group(self, join: dict[str, Any]) -> None:
        """See `WeightTarget.join_group`."""
        await self._engine.join_group(join)

    async def load_weights(
        self, update: dict[str, Any], version: Version, moved: Callable[[], None] = unheard
    ) -> None:
        """See `WeightTarget.load_weights`."""
        await self._engine.load_weights(update, version, moved)

    async def label(self, version: Version) -> None:
        """See `Engine.label`."""
        await self._engine.label(version)

    async def ping(self) -> None:
        """See `Engine.ping`. Raises what kept the engine from sleeping or waking."""
        if self._following is not None and self._following.done():
            self._following.result()
        await self._engine.ping()

    async def close(self) -> None:
        """See `Engine.close`; the GPU is let go of."""
        if self._following is not None:
            self._following.cancel()
        await self._engine.close()
        self._turns.leave()

    async def _enter(self) -> None:
        while not self._turns.enter():
            await asyncio.sleep(LOOK_S)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._turns.wanted:
                continue
            self._open.clear()
            if await self._drained():
                async with self._still:
                    await self._sleep()
            self._open.set()

    async def _drained(self) -> bool:
        """Wait until nothing is being sampled; False if the learner wants the GPU no more."""
        while self._sampling:
            await asyncio.sleep(LOOK_S)
            if not self._turns.wanted:
                return False
        return True

    async def _sleep(self) -> None:
        await self._engine.sleep()
        log.info("asleep: the learner has the GPU")
        self._turns.leave()
        await self._enter()
        await self._engine.wake()
        log.info("awake")
