"""Weights over gloo, for CPUs: buckets of bytes broadcast from rank 0, each checked against its
digest.

Digests are taken from the staged bytes before anything is sent, so a receiver knows that what it
loads is what the learner published. Each bucket has the group's deadline to itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
import xxhash
from torch import Tensor

from sppo.errors import TransferAborted
from sppo.weights import address, lookups
from sppo.weights.buckets import buckets, stage
from sppo.weights.protocol import ABORTED, unheard

BUCKET_BYTES = 32 << 20

# torch.distributed does not export these for type checkers.
_dist: Any = torch.distributed
TCPStore, PrefixStore, ProcessGroupGloo = _dist.TCPStore, _dist.PrefixStore, _dist.ProcessGroupGloo


def digest(flat: Tensor) -> str:
    """xxh3-128 of a [n] uint8 tensor on the CPU."""
    return xxhash.xxh3_128_hexdigest(flat.numpy().data)


class GlooGroup:
    """One membership in a group of ranks."""

    def __init__(
        self, *, host: str, port: int, rank: int, world_size: int, timeout_s: float, own_host: str,
        listen_fd: int | None = None,
    ) -> None:  # fmt: skip
        """The store is at `host`; the other ranks reach this one at `own_host`."""
        timeout = timedelta(seconds=timeout_s)
        lookups.leave_out()
        # Rank 0 hands in a socket bound to one address; left alone, the store listens on every
        # interface.
        server = {} if listen_fd is None else {"master_listen_fd": listen_fd}
        self._store = TCPStore(
            host, port, world_size, rank == 0, timeout, wait_for_workers=False, **server
        )
        self._rank, self._world_size, self._own_host, self._timeout = (
            rank,
            world_size,
            own_host,
            timeout,
        )
        self._group: Any = None

    def connect(self) -> None:
        """Meet the other ranks. Raises RuntimeError when they do not come in time."""
        options = ProcessGroupGloo._Options()
        options._timeout = self._timeout
        options._devices = [
            ProcessGroupGloo.create_device(hostname=socket.gethostbyname(self._own_host))
        ]
        self._group = ProcessGroupGloo(
            PrefixStore("sppo", self._store), self._rank, self._world_size, options
        )

    def broadcast(self, flat: Tensor) -> None:
        """Rank 0's [n] uint8 tensor to every rank. Raises RuntimeError if a rank is gone or too
        slow.
        """
        group = self._group  # close() may come from another thread
        if group is None:
            raise RuntimeError("the group was left")
        group.broadcast(flat, 0).wait()

    def wait_for_all(self) -> None:
        """Returns when every rank has called it. Raises RuntimeError if one is gone or too slow."""
        group = self._group
        if group is None:
            raise RuntimeError("the group was left")
        group.barrier().wait()

    def answer(self, text: str) -> None:
        """Leave a word for rank 0, before `connect`."""
        self._store.set(f"answer/{self._rank}", text)

    def answers(self) -> list[str]:
        """What the others left before they connected, by rank. It is not to be trusted."""
        found = [self._store.get(f"answer/{rank}") for rank in range(1, self._world_size)]
        return [ascii(text.decode("utf-8", "replace"))[1:-1] for text in found]

    def close(self) -> None:
        """Leave. A broadcast that another thread waits in keeps the group until it ends or its time
        is over.
        """
        self._group = None


class GlooSender:
    """The learner's end; see `sppo.weights.protocol.WeightSender`."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._group: GlooGroup | None = None
        self._staged: list[Tensor] = []

    def stage(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
        """Pack the weights into buckets, one after the other, and take their digests."""
        update, self._staged = stage(weights, self._staged, BUCKET_BYTES, pin=False)
        return update | {"digests": [digest(flat) for flat in self._staged]}

    def open(self, world_size: int, timeout_s: float) -> dict[str, Any]:
        """Listen on the configured address."""
        self.close()
        listener = socket.create_server((self._host, 0))
        port = listener.getsockname()[1]
        self._group = GlooGroup(
            host=self._host, port=port, rank=0, world_size=world_size, timeout_s=timeout_s,
            own_host=self._host,
            listen_fd=listener.detach(),
        )  # fmt: skip
        return {
            "master_address": self._host,
            "master_port": port,
            "world_size": world_size,
            "timeout_s": timeout_s,
        }

    def transfer(self, *, meet: bool, moved: Callable[[], None] = unheard) -> Callable[[], None]:
        """Meet the receivers if this is a new group, and broadcast the staged buckets."""
        group, staged = self._group, list(self._staged)
        assert group is not None, "open() comes first"

        def collective() -> None:
            if meet:
                group.connect()
                moved()
            for flat in staged:
                group.broadcast(flat)
                moved()

        return collective

    def close(self) -> None:
        """Leave the group."""
        if self._group is not None:
            self._group.close()
            self._group = None


class GlooReceiver:
    """A receiving rank, inside an engine's worker or a test."""

    def __init__(self) -> None:
        self._group: GlooGroup | None = None

    def join(
        self, *, master_address: str, master_port: int, rank: int, world_size: int,
        timeout_s: float,
        own_host: str = "127.0.0.1", answer: str | None = None,
    ) -> None:  # fmt: skip
        """Join the sender's group as `rank`, leaving an earlier one; peers reach this end at
        `own_host`, or where it is `auto` at the address by which this machine reaches the sender.
        `answer` is for a sender that asks for it.
        """
        self.close()
        try:
            if own_host == "auto":
                own_host = address.towards(master_address, master_port)
            self._group = GlooGroup(
                host=master_address, port=master_port, rank=rank, world_size=world_size,
                timeout_s=timeout_s,
                own_host=own_host,
            )  # fmt: skip
        except (RuntimeError, OSError) as error:
            raise TransferAborted(
                f"{ABORTED}: the learner is gone: {str(error).splitlines()[0]}"
            ) from error
        try:
            if answer is not None:
                self._group.answer(answer)
            self._group.connect()
        except RuntimeError as error:
            raise TransferAborted(
                f"{ABORTED}: the group did not meet: {str(error).splitlines()[0]}"
            ) from error

    def receive(
        self, *, moved: Callable[[], None] = unheard, **update: Any
    ) -> list[tuple[str, Tensor]]:
        """Every weight of `each`, once all have arrived; `moved` is called after each bucket."""
        weights = []
        for bucket in self.each(**update):
            weights += bucket
            moved()
        return weights

    def each(
        self,
        *,
        names: list[str],
        dtype_names: list[str],
        shapes: list[list[int]],
        digests: list[str],
    ) -> Iterator[list[tuple[str, Tensor]]]:
        """The weights of one bucket after the other.

        Raises TransferAborted when a peer is gone or too slow, or the bytes are not those that the
        learner staged: nothing is to be loaded then.
        """
        expected_buckets = buckets(names, dtype_names, shapes, BUCKET_BYTES)
        for bucket, expected in zip(expected_buckets, digests, strict=True):
            flat = torch.empty(bucket.nbytes, dtype=torch.uint8)
            with self._together() as group:
                group.broadcast(flat)
            if digest(flat) != expected:
                raise TransferAborted(
                    f"{ABORTED}: checksum mismatch in the bucket of {bucket.names[0]}"
                )
            yield bucket.unpack(flat)

    @contextmanager
    def _together(self) -> Iterator[GlooGroup]:
        """The group, to do something with the others. Raises TransferAborted when that fails."""
        if self._group is None:
            raise TransferAborted(f"{ABORTED}: weights announced before this engine joined a group")
        try:
            yield self._group
        except RuntimeError as error:  # gloo's only one: a lost connection, or the time is over
            raise TransferAborted(f"{ABORTED}: {str(error).splitlines()[0]}") from error

    def close(self) -> None:
        """Leave the group."""
        if self._group is not None:
            self._group.close()
            self._group = None
