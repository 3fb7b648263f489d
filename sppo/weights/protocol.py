"""The messages of a weight sync and the two ends that carry it out.

    learner                                 every generator
    announce {sync, version, members}   →   pause the engine                   → reply `ready`
    transfer {sync, members, join?, update}
                                        →   (join the group) load the weights,
                                            resume                             → reply `applied`
    release {sync}                      →   resume without new weights

`announce` finds out who is there; only those who answered are named in `transfer`. A join is sent
when the set of members changed since the last sync, or the last transfer failed. Every phase has a
deadline; that of a transfer begins anew with each bucket that moved, so it holds for any size. A
member that is late is left out until it shows a sign of life; when a transfer fails, who is left
begins again in a new group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from sppo.transport import codec
from sppo.types import Version

ANNOUNCE, TRANSFER, RELEASE = "announce", "transfer", "release"
ABORTED = "transfer aborted"
"""Begins the message of every TransferAborted: an engine in another process passes on the text
alone.
"""


def unheard() -> None:
    """Where nobody asks whether a transfer moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A generator's answer to one phase."""

    sync: str
    member: str
    phase: str
    """`ready` or `applied`."""
    error: str = ""
    """Why the phase failed on this member."""

    def pack(self) -> bytes:
        """For the `replies` channel."""
        return codec.pack(
            {"sync": self.sync, "member": self.member, "phase": self.phase, "error": self.error}
        )

    @classmethod
    def unpack(cls, data: bytes) -> Reply:
        """Inverse of `pack`. Raises BadFrame or TypeError."""
        return cls(**codec.unpack(data))


class WeightSender(Protocol):
    """The learner's end of one transport.

    update = sender.stage(policy.weights())      # a copy: the learner may go on afterwards
    # only when members changed; `join` is what a receiver needs to join
    join = sender.open(world_size, timeout_s)
    sender.transfer(meet=True)()                 # the collective, on a thread of its own
    """

    def stage(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
        """Copy the weights, one after the other and into host memory, and describe them: what an
        engine's `update_weights` takes.
        """

    def open(self, world_size: int, timeout_s: float) -> dict[str, Any]:
        """Begin a new group of `world_size` ranks, this end being rank 0; returns the address for
        receivers.

        A rank that waits longer than `timeout_s` for another gives up.
        """

    def transfer(self, *, meet: bool, moved: Callable[[], None] = unheard) -> Callable[[], None]:
        """The collective of this attempt: wait for the ranks of a new group if `meet`, then
        broadcast what was staged, calling `moved` for each bucket that is through.

        It keeps to the group of this moment, so one that hangs and wakes up later cannot disturb a
        newer group.
        """

    def close(self) -> None:
        """Leave the group. Safe to repeat."""


class WeightTarget(Protocol):
    """The generator's end: an engine whose weights can be replaced while completions are in
    flight.
    """

    @property
    def world_size(self) -> int:
        """Ranks that this engine adds to a group."""

    async def pause(self) -> None:
        """Freeze running completions in place and hold back new ones."""

    async def resume(self) -> None:
        """Go on."""

    async def join_group(self, join: dict[str, Any]) -> None:
        """Join the group that a sender opened; leaves an earlier one. Raises TransferAborted if it
        does not meet.
        """

    async def load_weights(
        self, update: dict[str, Any], version: Version, moved: Callable[[], None] = unheard
    ) -> None:
        """Receive what the sender broadcasts and run it as `version`, calling `moved`, from any
        thread, whenever a part is through.

        Raises TransferAborted if not everything arrived and nothing was loaded; WeightsMixed if
        something was, and the engine can take a whole transfer. After any other error it is lost.
        """
