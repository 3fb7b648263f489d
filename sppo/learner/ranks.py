"""The ranks of one learner: processes that share the model (`sppo.learner.sharded`).

Rank 0 is the learner; it starts the others, tells them what comes next, and takes part itself
(`sppo.learner.orders`). What is told and small results travel as msgpack over gloo, weights and
gradients over gloo or NCCL.

Ranks that rank 0 starts are on its machine, meet in a file of a private folder and talk on
loopback: nobody else can join them. Those started by hand are `sppo.learner.by_hand`'s. (NCCL
keeps the first interface that it was told for all its groups, so where weights go to other machines
it is left to choose.) A rank that dies ends the learner, which is then started again from its
checkpoint; if the learner dies, the system ends the other ranks.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor

from sppo import stop
from sppo.errors import RoleDiedError
from sppo.learner import mesh
from sppo.learner.children import Children
from sppo.learner.signs import Folder, Found, Signs
from sppo.learner.where import Where
from sppo.transport import codec
from sppo.types import digest

PATIENCE = timedelta(days=7)
"""Rank 0 may wait long for groups; a rank that is gone closes its connections."""
JOIN_S = 300.0
"""For every rank to start its process and come to where they meet."""
LEAVE_S = 20.0

# torch.distributed is not fully typed.
_dist: Any = torch.distributed


class Company(Protocol):
    """Who knows which other ranks have ended: `Children`, or `sppo.learner.by_hand.Apart`."""

    def ended(self) -> str:
        """Which have so far, and how; empty if none has."""

    def lost(self) -> str:
        """The same, after a moment in which it may show."""

    def expect_the_end(self) -> bool:
        """From here on they may end. False if that was said before."""

    def noticed(self) -> None:
        """Whoever waits for them knows that this life ends: it is not ended for one that died."""

    def end(self, grace_s: float = 0.0) -> None:
        """Wait so long for them, then end those that can be ended from here."""


class Ranks(Protocol):
    """One rank's way to the others. All of them call the collective methods at the same point."""

    rank: int
    size: int
    local: int
    """Number of this rank's GPU."""
    mesh: Any
    """For parameters; None where there is one rank."""
    where: Where
    """What this rank is doing."""

    def tell(self, message: dict[str, Any]) -> None:
        """Rank 0: what the others do next. Plain msgpack types."""

    def told(self) -> Iterator[dict[str, Any]]:
        """The others: what rank 0 tells, until it is done."""

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Plain msgpack types."""

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on rank 0; nothing elsewhere. Plain msgpack types."""

    def most(self, counts: Sequence[int]) -> list[int]:
        """The largest of all ranks, for each."""

    def add(self, value: Tensor) -> Tensor:
        """The sum over all ranks."""

    def lost(self) -> str:
        """Rank 0: which other rank has ended, and how; empty if none has."""

    def noticed(self) -> None:
        """Rank 0 knows that this life ends: its process is not ended for a rank that died."""

    def close(self, *, at_once: bool = False) -> None:
        """Rank 0: send the others home, or end them at once, wherever they are. Safe to repeat."""


class Solo:
    """One rank: nobody to tell, nobody to wait for."""

    rank = 0
    size = 1
    local = 0
    mesh: Any = None
    where = Where()  # nobody looks

    def tell(self, message: dict[str, Any]) -> None:
        """Nobody hears it."""

    def told(self) -> Iterator[dict[str, Any]]:
        """Nobody tells anything."""
        return iter(())

    def broadcast(self, value: Any) -> Any:
        """The same."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """The one."""
        return [value]

    def most(self, counts: Sequence[int]) -> list[int]:
        """The same."""
        return list(counts)

    def add(self, value: Tensor) -> Tensor:
        """The same."""
        return value

    def lost(self) -> str:
        """There is no other."""
        return ""

    def noticed(self) -> None:
        """There is no other."""

    def close(self, *, at_once: bool = False) -> None:
        """There is no other."""


class Team:
    """Several ranks."""

    def __init__(
        self, rank: int, size: int, store: Any, device: str, *, local: int | None = None,
        here: bool = True, network: str = "", company: Company | None = None, machine: int = 0,
        where: Where | None = None,
    ) -> None:  # fmt: skip
        """Meet the other ranks. `store` is a path in a private folder where no file is yet, the
        same for all, or a store of torch.distributed that all of them know.

        `local`: number of this rank's GPU, its own where all are on one machine.
        `machine`: ranks of each machine, where these share a model; 0 where all do.
        `here`: NCCL keeps to this machine, and will for the weights that go to generators.
        `network`: the interface to the others, loopback if it is not said.
        `company`: who knows which other ranks have ended.
        """
        self.rank, self.size, self.where = rank, size, where or Where()
        self.local = local = rank if local is None else local
        cuda = device != "cpu"
        if cuda:
            torch.cuda.set_device(local)
        private = isinstance(store, Path)
        meeting = _dist.FileStore(str(store), size) if private else store
        own = {"host": socket.gethostname(), "pid": os.getpid(), "machine": machine}
        mesh.check(_roll_call(meeting, rank, size, own, company.ended if company else str), machine)
        with _listening(network or _loopback(), nccl=cuda and here):
            backend = (
                {"backend": "nccl", "device_id": torch.device("cuda", local)}
                if cuda
                else {"backend": "gloo"}
            )
            _dist.init_process_group(
                store=meeting, rank=rank, world_size=size, timeout=PATIENCE, **backend
            )
            self._control = _dist.new_group(backend="gloo", timeout=PATIENCE)
            if cuda:
                _dist.barrier(device_ids=[local])  # NCCL connects here, while its interface is set
            self.mesh: Any = mesh.of("cuda" if cuda else "cpu", size, machine, PATIENCE)
        self._company = company
        self._folder: Path | None = store.parent if private else None

    def tell(self, message: dict[str, Any]) -> None:
        """See `Ranks.tell`."""
        self.broadcast(message)

    def told(self) -> Iterator[dict[str, Any]]:
        """See `Ranks.told`."""
        self.where.at("waiting for rank 0", patient=True)
        while message := self.broadcast(None):
            yield message
            self.where.at("waiting for rank 0", patient=True)

    def broadcast(self, value: Any) -> Any:
        """See `Ranks.broadcast`."""
        self.where.come()
        data = codec.pack({"value": value}) if self.rank == 0 else b""
        length = torch.tensor([len(data)])
        with _deaths():
            _dist.broadcast(length, 0, group=self._control)
            flat = _bytes(data, int(length))
            _dist.broadcast(flat, 0, group=self._control)
        return value if self.rank == 0 else codec.unpack(flat.numpy().tobytes())["value"]

    def gather(self, value: Any) -> list[Any]:
        """See `Ranks.gather`."""
        self.where.come()
        data = codec.pack({"value": value})
        with _deaths():
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            _dist.all_gather(lengths, torch.tensor([len(data)]), group=self._control)
            longest = max(int(n) for n in lengths)
            parts = (
                [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
                if self.rank == 0
                else None
            )
            _dist.gather(_bytes(data, longest), parts, 0, group=self._control)
        if parts is None:
            return []
        return [
            codec.unpack(p[: int(n)].numpy().tobytes())["value"]
            for p, n in zip(parts, lengths, strict=True)
        ]

    def most(self, counts: Sequence[int]) -> list[int]:
        """See `Ranks.most`."""
        self.where.come()
        found = torch.tensor(list(counts))
        with _deaths():
            _dist.all_reduce(found, _dist.ReduceOp.MAX, group=self._control)
        return [int(n) for n in found]

    def add(self, value: Tensor) -> Tensor:
        """See `Ranks.add`."""
        self.where.come()
        with _deaths():
            _dist.all_reduce(value)
        return value

    def lost(self) -> str:
        """See `Ranks.lost`."""
        return self._company.lost() if self._company else ""

    def noticed(self) -> None:
        """See `Ranks.noticed`."""
        if self._company:
            self._company.noticed()

    def close(self, *, at_once: bool = False) -> None:
        """See `Ranks.close`."""
        if self._company is None or not self._company.expect_the_end():
            return
        if at_once:
            self._company.end()
        else:
            with contextlib.suppress(RoleDiedError):  # its work is done all the same
                self.tell({})
            self._company.end(LEAVE_S)
            _dist.destroy_process_group()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def lead(
    size: int, device: str, settings: dict[str, Any], *, here: bool, owner: str, deadline_s: float
) -> Team:
    """Start ranks 1 .. `size` - 1 with these settings, and be rank 0. `owner` has no other team at
    this time. A rank that does not get on for `deadline_s` while others wait is named, and ended.
    """
    prefix = f"sppo-ranks-{digest(owner)}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):  # by a life that was killed
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    children = Children()
    store = folder / "store"
    given = {
        "size": size,
        "store": str(store),
        "device": device,
        "here": here,
        "settings": settings,
    }
    try:
        for rank in range(1, size):
            children.start(given | {"rank": rank, "parent": os.getpid()})
        where = _shown(folder, 0, size, children.end_hung, deadline_s)
        return Team(0, size, store, device, here=here, company=children, where=where)
    except BaseException:
        children.expect_the_end()
        children.end()
        shutil.rmtree(folder, ignore_errors=True)
        raise


def follow() -> tuple[Team, dict[str, Any]]:
    """In a process that `lead` started: join, and the settings."""
    stop.end_with_parent()
    given = json.loads(sys.stdin.read())
    if os.getppid() != given["parent"]:  # it died before the line above
        sys.exit(1)
    rank, size, store = given["rank"], given["size"], Path(given["store"])
    where = _shown(store.parent, rank, size, lambda _: None, math.inf)  # rank 0 judges
    team = Team(rank, size, store, given["device"], here=given["here"], where=where)
    return team, given["settings"]


def _shown(
    folder: Path, rank: int, size: int, lost: Callable[[Found], None], deadline_s: float
) -> Where:
    """Where this rank is, shown to the others from here on."""
    where = Where()
    signs = Signs(Folder(folder), where, rank=rank, size=size, deadline_s=deadline_s)
    signs.start(lost, lambda _: None)  # the folder goes with rank 0, and so do its children
    return where


def _roll_call(
    store: Any, rank: int, size: int, own: dict[str, Any], gone: Callable[[], str]
) -> list[dict[str, Any]]:
    """Be there, and wait until all are; what each says of itself. Raises RoleDiedError naming a
    rank that has not come in time, or that `gone` names.
    """
    store.set(f"joined/{rank}", json.dumps(own))
    deadline = time.monotonic() + JOIN_S
    for other in range(size):
        while not store.check([f"joined/{other}"]):
            if dead := gone():
                raise RoleDiedError(f"{dead} before it had joined; see the learner's log")
            if time.monotonic() > deadline:
                raise RoleDiedError(
                    f"learner.ranks = {size}: rank {other} has not joined within {JOIN_S:.0f} s on "
                    f"{socket.gethostname()}; see the learner's log, or lower learner.ranks"
                )
            time.sleep(0.02)
    return [json.loads(store.get(f"joined/{other}")) for other in range(size)]


def _bytes(data: bytes, length: int) -> Tensor:
    flat = torch.zeros(length, dtype=torch.uint8)
    if data:
        flat[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return flat


@contextmanager
def _deaths() -> Iterator[None]:
    """gloo's one error: a rank that is gone. Raises RoleDiedError."""
    try:
        yield
    except RuntimeError as error:
        raise RoleDiedError("a rank of the learner is gone; see the learner's log") from error


def _loopback() -> str:
    return next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))


@contextmanager
def _listening(name: str, *, nccl: bool) -> Iterator[None]:
    """Groups made inside listen on this interface: gloo's, and if asked NCCL's, whose data takes
    NVLink, PCIe or shared memory.
    """
    values = {"GLOO_SOCKET_IFNAME": name} | ({"NCCL_SOCKET_IFNAME": f"={name}"} if nccl else {})
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
