"""Weights over NCCL: the learner's end, and what both ends share.

NCCL itself knows no deadlines. Ranks meet in a store that has one, then in NCCL on a thread that
may be left; and whoever waits for a bucket longer than the deadline aborts the group from another
thread. On a CPU the same code moves host memory through whatever library VLLM_NCCL_SO_PATH names.
Not run on a GPU; docs/gpu.md says what was checked and how.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sppo.errors import TransferAborted
from sppo.weights import lookups
from sppo.weights.buckets import stage
from sppo.weights.protocol import ABORTED, unheard

BUFFER_BYTES, BUFFERS = 256 << 20, 2
"""Of a bucket, and of these the learner's GPU holds so many while it sends. A weight that is larger
travels in pieces of this size, each with the whole deadline.
"""


def here(device: torch.device) -> torch.device:
    """This device with its index: that of this thread."""
    if device.type == "cpu":
        return device
    return torch.device(device.type, torch.accelerator.current_device_index())


def make_group(
    host: str, port: int, *, rank: int, world_size: int, device: torch.device, timeout_s: float,
    listener: socket.socket | None = None,
) -> Any:  # fmt: skip
    """A communicator of these ranks; rank 0 hands in the socket that it listens on.

    Raises TransferAborted when the others do not come in time, RuntimeError where vLLM finds no
    NCCL.
    """
    from vllm.distributed.utils import StatelessProcessGroup

    lookups.leave_out()
    try:
        meeting = StatelessProcessGroup.create(
            host, port, rank, world_size, store_timeout=timeout_s, listen_socket=listener
        )
        # NCCL's own meeting has no deadline: it begins once everybody is known to be here.
        meeting.store.set(f"here/{rank}", b"1")
        meeting.store.wait([f"here/{r}" for r in range(world_size)])
    except (RuntimeError, OSError) as error:
        raise TransferAborted(
            f"{ABORTED}: the group did not meet: {str(error).splitlines()[0]}"
        ) from error
    return _Meeting(meeting, device).group(timeout_s)


class _Meeting:
    """NCCL's own meeting, on a thread: one whose peer is gone for good is left behind."""

    def __init__(self, meeting: Any, device: torch.device) -> None:
        from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator

        self._group = PyNcclCommunicator.__new__(PyNcclCommunicator)
        self._error: Exception | None = None
        self._lock, self._left = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, args=(meeting, device), daemon=True)
        self._thread.start()

    def _run(self, meeting: Any, device: torch.device) -> None:
        from vllm.utils.nccl import unpinned_nccl_env
        from vllm.utils.torch_utils import current_stream

        if device.type == "cpu":
            current_stream().cuda_stream = None  # this thread's stand-in has none to hand on
        try:
            with _stream(device, 0), unpinned_nccl_env():
                type(self._group).__init__(self._group, meeting, device=device)
        except Exception as error:  # noqa: BLE001 - handed to the caller by group()
            self._error = error
        with self._lock:
            if self._left:
                _abort(self._group)

    def group(self, timeout_s: float) -> Any:
        """What came of it. Raises TransferAborted, or what NCCL raised that is not its peers'."""
        self._thread.join(timeout_s)
        with self._lock:  # which the other thread waits for: none aborts what the other does
            self._left = self._thread.is_alive()
            if self._left:
                _abort(self._group)  # its first collective may be what hangs
        if self._left:
            raise TransferAborted(f"{ABORTED}: NCCL did not meet within {timeout_s:.1f} s")
        if self._error is not None:
            if _of_nccl(self._error):
                raise TransferAborted(f"{ABORTED}: {self._error}") from self._error
            raise self._error
        if self._group.disabled:  # its broadcasts would do nothing, without a word
            raise RuntimeError("vLLM finds no NCCL library, or VLLM_DISABLE_PYNCCL is set")
        return self._group


def receive(
    group: Any, nbytes: int, device: torch.device, *, piece_bytes: int, timeout_s: float
) -> Tensor:
    """The next [nbytes] uint8 that rank 0 broadcasts, in pieces of `piece_bytes`.

    Raises TransferAborted, after which the group is gone, if one does not come within `timeout_s`.
    """
    with _stream(device, 0) as stream:
        flat = torch.empty(nbytes, dtype=torch.uint8, device=device)
        for piece in torch.split(flat, piece_bytes):
            with _deadline(group, timeout_s):
                group.broadcast(piece, 0, stream=stream)
                stream.synchronize()
    return flat


def send(
    group: Any, staged: Sequence[Tensor], device: torch.device, *, piece_bytes: int,
    moved: Callable[[], None], check: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Broadcast these [n] uint8 of host memory from rank 0, in pieces of `piece_bytes`. `check`
    raises once the group has been aborted: nothing may be handed to NCCL then.
    """
    under_way: list[Tensor | None] = [None] * BUFFERS
    pieces = [piece for flat in staged for piece in torch.split(flat, piece_bytes)]
    for i, piece in enumerate(pieces):
        with _stream(device, i % BUFFERS) as stream:
            stream.synchronize()  # what this stream sent before has left its memory
            moved()
            under_way[i % BUFFERS] = sent = piece.to(device, non_blocking=True)
            check()
            group.broadcast(sent, 0, stream=stream)
    for i in range(len(pieces), len(pieces) + BUFFERS):  # the oldest first
        with _stream(device, i % BUFFERS) as stream:
            stream.synchronize()
        moved()


class NcclSender:
    """The learner's end; see `sppo.weights.protocol.WeightSender`."""

    def __init__(self, host: str, device: str, *, bucket_bytes: int = BUFFER_BYTES) -> None:
        self._host, self._device, self._bucket_bytes = host, torch.device(device), bucket_bytes
        self._lock = threading.Lock()
        self._group: Any = None
        self._address: dict[str, Any] = {}
        self._listener: socket.socket | None = None
        self._staged: list[Tensor] = []

    def stage(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
        """Copies in host memory, pinned, in the place of the last ones: an attempt may be repeated
        while the learner's own weights change, and its GPU need not hold them twice.
        """
        cuda = self._device.type == "cuda"
        update, self._staged = stage(weights, self._staged, self._bucket_bytes, pin=cuda)
        if cuda:
            torch.accelerator.synchronize()  # they are read from another stream, by another thread
        return update

    def open(self, world_size: int, timeout_s: float) -> dict[str, Any]:
        """Listen on the configured address; the group itself meets in `transfer`."""
        self.close()
        self._listener = socket.create_server((self._host, 0))
        self._address = {
            "master_address": self._host,
            "master_port": self._listener.getsockname()[1],
            "world_size": world_size,
            "timeout_s": timeout_s,
            "bucket_bytes": self._bucket_bytes,
        }
        return self._address

    def transfer(self, *, meet: bool, moved: Callable[[], None] = unheard) -> Callable[[], None]:
        """Meet the receivers of a new group, and broadcast."""
        address, group, listener = self._address, self._group, self._listener
        staged, device = list(self._staged), here(self._device)
        if meet:
            self._listener = None  # the store closes it

        def collective() -> None:
            def check() -> None:
                if used is not self._group:  # `close` forgets it, then aborts it
                    raise RuntimeError("the group was left")

            with _on(device):  # a new thread begins on device 0
                used = self._meet(address, device, listener) if meet else group
                moved()
                send(used, staged, device, piece_bytes=self._bucket_bytes, moved=moved, check=check)
            check()  # what was left to send went nowhere

        return collective

    def _meet(
        self, address: dict[str, Any], device: torch.device, listener: socket.socket | None
    ) -> Any:
        group = make_group(
            address["master_address"], address["master_port"], rank=0,
            world_size=address["world_size"],
            device=device, timeout_s=address["timeout_s"], listener=listener,
        )  # fmt: skip
        with self._lock:
            given_up = self._address is not address
            if not given_up:
                self._group = group
        if given_up:
            group.destroy()
            raise RuntimeError("this group was given up while it met")
        return group

    def close(self) -> None:
        """Leave the group, aborting what hangs in it."""
        with self._lock:
            self._address = {}
            group, self._group = self._group, None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if group is not None:
            group.destroy()


@contextlib.contextmanager
def _deadline(group: Any, seconds: float) -> Iterator[None]:
    """Abort the group if this takes longer. Raises TransferAborted then, and where NCCL failed."""
    over = threading.Event()

    def abort() -> None:
        over.set()  # before it takes effect: what comes out of it then is not to be used
        group.destroy()

    watchdog = threading.Timer(seconds, abort)
    watchdog.daemon = True
    watchdog.start()
    failure: Exception | None = None
    try:
        yield
    except RuntimeError as error:
        if not over.is_set() and not _of_nccl(error):
            raise
        failure = error
    finally:
        watchdog.cancel()
        if over.is_set():
            watchdog.join()
    if over.is_set():
        raise TransferAborted(f"{ABORTED}: nothing moved for {seconds:.1f} s") from failure
    if failure is not None:
        group.destroy()
        raise TransferAborted(f"{ABORTED}: {failure}") from failure


def _of_nccl(error: Exception) -> bool:
    """Whether vLLM raised it for a result of NCCL's, and not the device for itself."""
    return isinstance(error, RuntimeError) and str(error).startswith("NCCL error")


def _abort(group: Any) -> None:
    if getattr(group, "comm", None) is not None:
        group.destroy()


# where NCCL's work is put ----------------------------------------------------------------------
class _Host:
    """For a CPU, where each call of the library blocks until it is done."""

    cuda_stream = None

    def synchronize(self) -> None:
        """Nothing is under way."""


@cache
def _streams(device: torch.device) -> tuple[Any, ...]:
    """Made once: memory that was freed on a stream is found again on that stream alone."""
    if device.type == "cpu":
        return (_Host(),) * BUFFERS
    return tuple(torch.cuda.Stream(device) for _ in range(BUFFERS))  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _stream(device: torch.device, i: int) -> Iterator[Any]:
    """Stream i of this device, as this thread's."""
    stream = _streams(device)[i]
    if device.type == "cpu":
        yield stream
        return
    with _on(device), torch.cuda.stream(stream):
        yield stream


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if device.type == "cpu":
        return contextlib.nullcontext()
    return torch.accelerator.device_index(device.index)
