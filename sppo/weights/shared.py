"""Weights through memory that learner and engines have together, on one GPU or one CPU.

A group over gloo says who is there and whose turn it is; the bytes are never sent. The learner
copies a piece of its staged weights into one of `SLOTS` and says which; every rank copies it from
there into memory of its own and says so; then that slot is free again. Meanwhile the learner has
filled the other. Where a rank cannot open the slots, the pieces of that group travel over gloo.

Handles travel with the address of the group, in the learner's `transfer` message, and the sum of
each bucket's words beside the names: what a rank took is compared with it before it is loaded, so
one that read too early, or too late, loads nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from sppo.errors import TransferAborted
from sppo.weights import segments
from sppo.weights.buckets import Bucket, buckets, stage
from sppo.weights.gloo import GlooGroup, GlooReceiver, GlooSender
from sppo.weights.nccl import here
from sppo.weights.protocol import ABORTED, unheard
from sppo.weights.segments import NotShared

log = logging.getLogger(__name__)

BUCKET_BYTES = 64 << 20
SLOTS = 2
"""Each of a bucket's size. A weight that is larger travels in pieces."""
REASON = 300
"""Characters of why a rank opened nothing."""


def total(flat: Tensor) -> int:
    """Sum of the 64-bit words of [n] uint8, n a multiple of 8, where it lies; it wraps around."""
    return int(flat.view(torch.int64).sum())


class SharedSender(GlooSender):
    """The learner's end; see `sppo.weights.protocol.WeightSender`."""

    def __init__(self, host: str, device: str, *, bucket_bytes: int = BUCKET_BYTES) -> None:
        super().__init__(host)
        self._device, self._bucket_bytes = torch.device(device), bucket_bytes
        self._slots: list[Tensor] = []
        self._handles: list[dict[str, Any]] = []
        self._shares = False
        self._said: set[str] = set()

    def stage(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
        """Copies in host memory, pinned on a GPU: an attempt may be repeated while the learner's
        own weights change, and the GPU that it shares need not hold them twice.
        """
        cuda = self._device.type == "cuda"
        update, self._staged = stage(weights, self._staged, self._bucket_bytes, pin=cuda)
        segments.settle(here(self._device))
        return update | {"sums": [total(flat) for flat in self._staged]}

    def open(self, world_size: int, timeout_s: float) -> dict[str, Any]:
        """Listen on the configured address, and make the slots when they are first needed."""
        if not self._slots:
            self._make_slots()
        join = super().open(world_size, timeout_s)
        return join | {"bucket_bytes": self._bucket_bytes, "slots": self._handles}

    def _make_slots(self) -> None:
        device = here(self._device)
        try:
            made = [segments.create(self._bucket_bytes, device) for _ in range(SLOTS)]
        except NotShared as reason:
            self._say(f"the learner: {reason}")
            return
        self._slots, self._handles = [s for s, _ in made], [h for _, h in made]

    def transfer(self, *, meet: bool, moved: Callable[[], None] = unheard) -> Callable[[], None]:
        """Meet the receivers if this is a new group, and show them the staged buckets."""
        group, staged, device = self._group, list(self._staged), here(self._device)
        assert group is not None, "open() comes first"

        def collective() -> None:
            with segments.on(device):
                if meet:
                    group.connect()
                    self._shares = self._agree(group)
                    moved()
                pieces = [p for flat in staged for p in torch.split(flat, self._bucket_bytes)]
                self._show(group, pieces, moved) if self._shares else _send(group, pieces, moved)

        return collective

    def _agree(self, group: GlooGroup) -> bool:
        """Whether every rank has opened the slots; all are told."""
        reasons = [r for r in group.answers() if r] if self._slots else ["no slots"]
        if self._slots and reasons:
            self._say(reasons[0])
        group.broadcast(torch.tensor([not reasons], dtype=torch.uint8))
        return not reasons

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            log.warning("weights go over gloo, and not through shared memory: %s", reason)

    def _show(self, group: GlooGroup, pieces: list[Tensor], moved: Callable[[], None]) -> None:
        for i, piece in enumerate(pieces):
            if i == 0:
                self._fill(i, piece)
            group.broadcast(torch.tensor([i % SLOTS], dtype=torch.uint8))
            if i + 1 < len(pieces):
                self._fill(i + 1, pieces[i + 1])  # everybody has taken what was there
            group.wait_for_all()
            moved()

    def _fill(self, i: int, piece: Tensor) -> None:
        slot = self._slots[i % SLOTS]
        slot[: piece.numel()].copy_(piece, non_blocking=True)
        segments.settle(slot.device)  # before anybody is told


def _send(group: GlooGroup, pieces: list[Tensor], moved: Callable[[], None]) -> None:
    for piece in pieces:
        group.broadcast(piece)
        moved()


class SharedReceiver(GlooReceiver):
    """A receiving rank on this device, inside an engine's worker or a test."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._slots: list[Tensor] = []
        self._bucket_bytes = 1

    def join(  # type: ignore[override]
        self, *, slots: list[dict[str, Any]], bucket_bytes: int, rank: int, **address: Any
    ) -> None:
        """Join the sender's group as `rank`, leaving an earlier one, and open its slots.

        Raises TransferAborted if the group does not meet.
        """
        self.close()
        opened, reason = [], ""
        try:
            opened = [segments.attach(handle, here(self._device)) for handle in slots]
        except NotShared as why:
            reason = f"rank {rank}: {why}"[:REASON]
        super().join(rank=rank, answer=reason, **address)
        self._bucket_bytes = bucket_bytes
        self._slots = opened if self._told() else []

    def each(  # type: ignore[override]
        self, *, names: list[str], dtype_names: list[str], shapes: list[list[int]], sums: list[int]
    ) -> Iterator[list[tuple[str, Tensor]]]:
        """The weights of one bucket after the other, in memory of their own: of the device, or of
        the host where they came over gloo.

        Raises TransferAborted when a peer is gone or too slow, or the bytes are not those that the
        learner staged; what was yielded before is good.
        """
        expected = buckets(names, dtype_names, shapes, self._bucket_bytes)
        for bucket, words in zip(expected, sums, strict=True):
            # Not held by a name: it would stay, on the device, until the next sync.
            yield bucket.unpack(self._checked(bucket, words))

    def _checked(self, bucket: Bucket, words: int) -> Tensor:
        try:
            flat = self._take(bucket)
            if total(flat) != words:
                raise TransferAborted(
                    f"{ABORTED}: checksum mismatch in the bucket of {bucket.names[0]}"
                )
        except TransferAborted:
            self.close()  # the others learn of it, and a learner that died has its memory back
            raise
        return flat

    def _take(self, bucket: Bucket) -> Tensor:
        device = here(self._device) if self._slots else torch.device("cpu")
        flat = torch.empty(bucket.nbytes, dtype=torch.uint8, device=device)
        for piece in torch.split(flat, self._bucket_bytes):
            if not self._slots:
                with self._together() as group:
                    group.broadcast(piece)
                continue
            piece.copy_(self._slots[self._told()][: piece.numel()])
            segments.settle(device)  # before it is filled again
            with self._together() as group:
                group.wait_for_all()
        return flat

    def _told(self) -> int:
        """The next number that the learner tells everybody."""
        number = torch.zeros(1, dtype=torch.uint8)
        with self._together() as group:
            group.broadcast(number)
        return int(number)

    def close(self) -> None:
        """Leave the group, and let go of the learner's memory."""
        super().close()
        self._slots = []
