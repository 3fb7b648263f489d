"""A generator's side of a weight sync.

Consumes control messages of the learner; waits for the engine; unblocks the learner with its
replies. Weights that do not all arrive are not loaded: the engine goes on with the old ones and the
learner tries again. A failure while they are being loaded leaves a mixture of two versions, so it
is raised and ends the generator.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from sppo.errors import TransferAborted, WeightSyncError
from sppo.faults import point
from sppo.transport import codec
from sppo.transport.broker import Mailbox
from sppo.types import Version
from sppo.weights.protocol import ANNOUNCE, RELEASE, TRANSFER, Reply, WeightTarget

log = logging.getLogger(__name__)


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
                    "the learner went silent in weight sync %s; going on with %s",
                    self._paused_for,
                    self.applied,
                )
                await self._resume()

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
            log.warning("left out of weight sync %s; going on with %s", sync, self.applied)
            await self._resume()

    async def _pause(self) -> None:
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
            # that hangs.
            async with asyncio.timeout(2 * self._timeout):
                if message["join"] is not None:
                    join = message["join"] | {"rank_offset": message["offsets"][self._member]}
                    await self._target.join_group(join)
                    point("generator.sync.joined")
                await self._target.load_weights(message["update"], version)
        except TransferAborted as error:
            log.warning("weight sync of %s: %s; going on with %s", version, error, self.applied)
            await self._resume()
            await self._reply(message["sync"], "applied", error=str(error))
            return
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            await self._reply(message["sync"], "applied", error=reason)
            raise WeightSyncError(f"{self._member} could not apply {version}: {reason}") from error
        self.applied = version
        point("generator.sync.applied")
        await self._resume()
        await self._reply(message["sync"], "applied")

    async def _resume(self) -> None:
        self._paused_for = ""
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
