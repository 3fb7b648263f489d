"""A generator's side of a weight sync.

Consumes control messages of the learner; waits for the engine; unblocks the learner with its
replies. Weights that do not all arrive are not loaded: the engine goes on with the old ones and the
learner tries again. Where some were loaded (`WeightsMixed`) it stays paused until a whole transfer
came. Any other failure is raised and ends the generator.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from sppo.errors import TransferAborted, WeightsMixed, WeightSyncError
from sppo.faults import point
from sppo.transport import codec
from sppo.transport.broker import Mailbox
from sppo.types import Version
from sppo.weights.protocol import ANNOUNCE, RELEASE, TRANSFER, Reply, WeightTarget

log = logging.getLogger(__name__)

MIXED_S = 600.0
"""How long an engine with weights of two versions waits for a whole transfer: a learner that was
killed is back by then.
"""


class WeightReceiver:
    """Follows the control channel of one run on behalf of one engine.

    receiver = WeightReceiver(broker.mailbox, engine, "generator-0", phase_timeout_s=60)
    await receiver.run()     # until cancelled; `receiver.applied` is what the engine runs
    """

    def __init__(
        self, mailbox: Mailbox, target: WeightTarget, member: str, *, phase_timeout_s: float
    ) -> None:
        self._mailbox = mailbox
        self._target = target
        self._member = member
        self._timeout = phase_timeout_s
        self._position = mailbox.tail("control")
        self._paused_for = ""
        self._paused_until = 0.0
        self._mixed_until: float | None = None
        """Set while the engine holds weights of two versions, and so stays paused."""
        self._limit: asyncio.Timeout | None = None
        self.applied: Version | None = None

    @property
    def busy(self) -> bool:
        """Whether a weight sync is going on here."""
        return bool(self._paused_for)

    async def run(self) -> None:
        """Handle control messages for ever. Raises WeightSyncError when weights could not be
        applied.
        """
        while True:
            for position, data in await asyncio.to_thread(
                self._mailbox.receive, "control", self._position, 1.0
            ):
                self._position = position
                await self._handle(codec.unpack(data))
            if self._paused_for and time.monotonic() > self._paused_until:
                log.warning(
                    "the learner went silent in weight sync %s; %s",
                    self._paused_for,
                    self._goes_on(),
                )
                await self._resume()
            if self._mixed_until is not None and time.monotonic() > self._mixed_until:
                raise WeightSyncError(
                    f"{self._member} holds weights of two versions, and no whole transfer came "
                    f"within {MIXED_S:.0f} s"
                )

    async def _handle(self, message: dict[str, Any]) -> None:
        kind, sync = message["kind"], message["sync"]
        if kind == ANNOUNCE and self._member in message["members"]:
            self._paused_for = sync
            await self._pause()
            point("generator.sync.paused")
            self._paused_until = time.monotonic() + 2 * self._timeout
            await self._reply(sync, "ready")
        elif kind == TRANSFER and sync == self._paused_for and self._member in message["members"]:
            await self._apply(message)
        elif kind in (RELEASE, TRANSFER) and sync == self._paused_for:
            log.warning("left out of weight sync %s; %s", sync, self._goes_on())
            await self._resume()

    async def _pause(self) -> None:
        if self._mixed_until is not None:
            return  # it has been since
        try:
            async with asyncio.timeout(self._timeout):
                await self._target.pause()
        except TimeoutError:
            raise WeightSyncError(
                f"{self._member}: the engine did not pause within {self._timeout:.0f} s"
            ) from None

    async def _apply(self, message: dict[str, Any]) -> None:
        version = Version.parse(message["version"])
        try:
            # Joining and receiving have deadlines of their own below; this one catches an engine
            # that hangs. It begins anew when a part of the weights is through.
            async with asyncio.timeout(2 * self._timeout) as self._limit:
                if message["join"] is not None:
                    join = message["join"] | {"rank_offset": message["offsets"][self._member]}
                    await self._target.join_group(join)
                    point("generator.sync.joined")
                await self._target.load_weights(message["update"], version, self._moved())
        except TransferAborted as error:
            if isinstance(error, WeightsMixed):
                self._mixed_until = time.monotonic() + MIXED_S
            log.warning("weight sync of %s: %s; %s", version, error, self._goes_on())
            await self._resume()
            await self._reply(message["sync"], "applied", error=str(error))
            return
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            await self._reply(message["sync"], "applied", error=reason)
            raise WeightSyncError(f"{self._member} could not apply {version}: {reason}") from error
        finally:
            self._limit = None
        self.applied, self._mixed_until = version, None
        point("generator.sync.applied")
        await self._resume()
        await self._reply(message["sync"], "applied")

    def _moved(self) -> Callable[[], None]:
        """To be called from any thread when something moved."""
        loop = asyncio.get_running_loop()

        def extend() -> None:
            if self._limit is not None and not self._limit.expired():
                self._limit.reschedule(loop.time() + 2 * self._timeout)

        def moved() -> None:
            loop.call_soon_threadsafe(extend)

        return moved

    def _goes_on(self) -> str:
        mixed = self._mixed_until is not None
        return "paused until weights come whole" if mixed else f"going on with {self.applied}"

    async def _resume(self) -> None:
        self._paused_for = ""
        if self._mixed_until is not None:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._target.resume()
        except TimeoutError:
            raise WeightSyncError(
                f"{self._member}: the engine did not resume within {self._timeout:.0f} s"
            ) from None

    async def _reply(self, sync: str, phase: str, error: str = "") -> None:
        reply = Reply(sync=sync, member=self._member, phase=phase, error=error)
        await asyncio.to_thread(self._mailbox.send, "replies", reply.pack())
