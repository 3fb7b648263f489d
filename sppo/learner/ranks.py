"""The ranks of one learner: processes on one machine that share the model (`sppo.learner.sharded`).

Rank 0 is the learner; it starts the others, tells them what comes next, and takes part itself:

    rank 0        team.order("train", ...)   then its own share
    rank 1 ..     for order in team.orders(): their share of it

Orders and small results travel as msgpack over gloo, weights and gradients over gloo or NCCL. The
ranks meet in a file of a private folder and talk on loopback: nobody else can join them. (NCCL
keeps the first interface that it was told for all its groups, so where weights go to other machines
it is left to choose.) A rank that dies ends the learner, which is then started again from its
checkpoint; if the learner dies, the system ends the other ranks.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from sppo import stop
from sppo.errors import RoleDiedError
from sppo.transport import codec
from sppo.types import digest

log = logging.getLogger(__name__)

PATIENCE = timedelta(
    days=7
)  # rank 0 may wait long for groups; a rank that is gone closes its connections
DEATH_NOTICE_S = 15.0
NOTICE_S = 2.0
LEAVE_S = 20.0
_PR_SET_PDEATHSIG = 1

# torch.distributed is not fully typed.
_dist: Any = torch.distributed


class Alone:
    """One rank: nobody to tell, nobody to wait for."""

    rank = 0
    size = 1
    mesh: Any = None

    def order(self, name: str, **arguments: Any) -> None:
        """Rank 0: have the others begin this."""

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Plain msgpack types."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on rank 0; nothing elsewhere. Plain msgpack types."""
        return [value]

    def most(self, counts: Sequence[int]) -> list[int]:
        """The largest of all ranks, for each."""
        return list(counts)

    def add(self, value: Tensor) -> Tensor:
        """The sum over all ranks."""
        return value

    def lost(self) -> str:
        """Rank 0: which other rank has ended, and how; empty if none has."""
        return ""

    def close(self, *, at_once: bool = False) -> None:
        """Rank 0: send the others home, or end them at once, wherever they are. Safe to repeat."""


class Team(Alone):
    """Several ranks. `mesh` is for parameters."""

    def __init__(
        self, rank: int, size: int, store: Path, device: str, *, here: bool = True
    ) -> None:
        """Meet the other ranks. `store` is a path in a private folder where no file is yet, the
        same for all.

        `here`: NCCL keeps to this machine, and will for the weights that go to generators.
        """
        self.rank, self.size = rank, size
        cuda = device != "cpu"
        if cuda:
            torch.cuda.set_device(rank)
        meeting = _dist.FileStore(str(store), size)
        with _loopback_only(nccl=cuda and here):
            backend = (
                {"backend": "nccl", "device_id": torch.device("cuda", rank)}
                if cuda
                else {"backend": "gloo"}
            )
            _dist.init_process_group(
                store=meeting, rank=rank, world_size=size, timeout=PATIENCE, **backend
            )
            self._control = _dist.new_group(backend="gloo", timeout=PATIENCE)
            if cuda:
                _dist.barrier(device_ids=[rank])  # NCCL connects here, while its interface is set
        from torch.distributed.device_mesh import DeviceMesh

        self.mesh = DeviceMesh.from_group(_dist.group.WORLD, "cuda" if cuda else "cpu")
        self._children: list[subprocess.Popen[bytes]] = []
        self._folder: Path | None = None
        self._over = threading.Event()

    @classmethod
    def lead(
        cls, size: int, device: str, settings: dict[str, Any], *, here: bool, owner: str
    ) -> Team:
        """Start ranks 1 .. `size` - 1 with these settings, and be rank 0. `owner` has no other team
        at this time.
        """
        prefix = f"sppo-ranks-{digest(owner)}-"
        for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):  # by a life that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        children: list[subprocess.Popen[bytes]] = []
        ended = threading.Event()
        threading.Thread(target=_watch, args=(children, ended), daemon=True, name="ranks").start()
        given = {
            "size": size,
            "store": str(folder / "store"),
            "device": device,
            "here": here,
            "settings": settings,
        }
        try:
            for rank in range(1, size):
                children.append(_start(given | {"rank": rank, "parent": os.getpid()}))
            team = cls(0, size, folder / "store", device, here=here)
        except BaseException:
            ended.set()
            _end(children)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        team._children, team._folder, team._over = children, folder, ended
        return team

    @classmethod
    def follow(cls) -> tuple[Team, dict[str, Any]]:
        """In a process that `lead` started: join, and the settings."""
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        given = json.loads(sys.stdin.read())
        if os.getppid() != given["parent"]:  # it died before the line above
            sys.exit(1)
        team = cls(
            given["rank"], given["size"], Path(given["store"]), given["device"], here=given["here"]
        )
        return team, given["settings"]

    def order(self, name: str, **arguments: Any) -> None:
        self.broadcast({"do": name, **arguments})

    def orders(self) -> Iterator[dict[str, Any]]:
        """What rank 0 wants, until it is done."""
        while (order := self.broadcast(None))["do"] != "end":
            yield order

    def broadcast(self, value: Any) -> Any:
        data = codec.pack({"value": value}) if self.rank == 0 else b""
        length = torch.tensor([len(data)])
        with _deaths():
            _dist.broadcast(length, 0, group=self._control)
            flat = _bytes(data, int(length))
            _dist.broadcast(flat, 0, group=self._control)
        return value if self.rank == 0 else codec.unpack(flat.numpy().tobytes())["value"]

    def gather(self, value: Any) -> list[Any]:
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
        found = torch.tensor(list(counts))
        with _deaths():
            _dist.all_reduce(found, _dist.ReduceOp.MAX, group=self._control)
        return [int(n) for n in found]

    def add(self, value: Tensor) -> Tensor:
        with _deaths():
            _dist.all_reduce(value)
        return value

    def lost(self) -> str:
        deadline = (
            time.monotonic() + NOTICE_S
        )  # a connection breaks a moment before the process is gone
        while not (found := _lost(self._children)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def close(self, *, at_once: bool = False) -> None:
        if self._over.is_set() or self.rank:
            return
        self._over.set()
        if at_once:
            _end(self._children)
        else:
            with contextlib.suppress(RoleDiedError):  # its work is done all the same
                self.order("end")
            _end(self._children, LEAVE_S)
            _dist.destroy_process_group()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def local(value: Tensor) -> Tensor:
    """This rank's part of a sharded tensor; a plain one as it is."""
    return value.to_local() if hasattr(value, "to_local") else value


def whole(value: Tensor) -> Tensor:
    """A sharded tensor from all ranks, which must all call this; a plain one as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def rows(total: int, team: Alone) -> slice:
    """The rows of a tensor that are this rank's: as `torch.chunk` splits, so the last ranks may
    have none.
    """
    each = -(-total // team.size)
    return slice(min(team.rank * each, total), min((team.rank + 1) * each, total))


@torch.no_grad()
def fill(value: Tensor, source: Any, team: Alone) -> None:
    """Put this rank's rows of `source`, a whole tensor or a slice of a safetensors file, into a
    tensor.
    """
    local(value).copy_(source[rows(value.shape[0], team)] if value.ndim else source[...])


def _start(given: dict[str, Any]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "sppo.learner.follower"],
        stdin=subprocess.PIPE,
        preexec_fn=stop.ignore,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given).encode())  # secrets among them: no command line
    process.stdin.close()
    return process


def _watch(children: list[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """End this process when a rank has died and whoever waits for it does not notice: NCCL may wait
    for ever.
    """
    while not over.wait(0.5):
        if dead := _lost(children):
            log.error("%s; the learner cannot go on without it", dead)
            if not over.wait(DEATH_NOTICE_S):
                os._exit(RoleDiedError.exit_code)
            return


def _lost(children: list[subprocess.Popen[bytes]]) -> str:
    ended = [(rank, process.poll()) for rank, process in enumerate(children, start=1)]
    return ", ".join(
        f"rank {rank} of the learner ended with {code}" for rank, code in ended if code is not None
    )


def _end(children: list[subprocess.Popen[bytes]], grace_s: float = 0.0) -> None:
    deadline = time.monotonic() + grace_s
    for process in children:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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


@contextmanager
def _loopback_only(*, nccl: bool) -> Iterator[None]:
    """Groups made inside listen on loopback: gloo's, and NCCL's, whose data takes NVLink, PCIe or
    shared memory.
    """
    name = next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))
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
