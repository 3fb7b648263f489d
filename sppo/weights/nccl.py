"""Weights over NCCL: the learner's end, and vLLM's own receiving end with deadlines. All that needs
a GPU is here.

Written against the source of vLLM 0.32.0 and not run on a GPU; docs/gpu.md says what was checked
and how. NCCL itself knows no deadlines: ranks meet in a store that has one before NCCL begins, and
a group that hangs is aborted from another thread. A transfer that breaks off half-way leaves a
mixture of weights, so the generators that took part start again.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from sppo.errors import TransferAborted
from sppo.weights import lookups
from sppo.weights.protocol import ABORTED

BUFFER_BYTES, BUFFERS = 256 << 20, 2
"""Of packed weights on either end, beside what the engine has set aside for itself."""


def make_group(
    host: str, port: int, *, rank: int, world_size: int, device: int, timeout_s: float,
    listener: socket.socket | None = None,
) -> Any:  # fmt: skip
    """A communicator of these ranks; rank 0 hands in the socket that it listens on.

    Raises TransferAborted when the others do not come in time, RuntimeError where vLLM finds no
    NCCL.
    """
    from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
    from vllm.distributed.utils import StatelessProcessGroup
    from vllm.utils.nccl import unpinned_nccl_env

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
    with unpinned_nccl_env():
        group = PyNcclCommunicator(meeting, device=device)
    if group.disabled:  # its broadcasts would do nothing, without a word
        raise RuntimeError("vLLM finds no NCCL library, or VLLM_DISABLE_PYNCCL is set")
    return group


class NcclSender:
    """The learner's end, packed; see `sppo.weights.protocol.WeightSender`.

    On the GPU are, during a transfer, the weights of BUFFERS buffers and these as they are packed.
    """

    def __init__(self, host: str, device: str) -> None:
        self._host, self._device = host, device
        self._lock = threading.Lock()
        self._group: Any = None
        self._address: dict[str, Any] = {}
        self._listener: socket.socket | None = None
        self._staged: list[tuple[str, Tensor]] = []

    def stage(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
        """Copies in host memory, pinned, in the place of the last ones: an attempt may be repeated
        while the learner's own weights change, and its GPU need not hold them twice.
        """
        import torch

        places, self._staged = dict(self._staged), []
        for name, weight in weights:
            place = places.get(name)
            if place is None or (place.shape, place.dtype) != (weight.shape, weight.dtype):
                pin = torch.device(self._device).type == "cuda"
                place = torch.empty(weight.shape, dtype=weight.dtype, pin_memory=pin)
            self._staged.append((name, place.copy_(weight.detach(), non_blocking=True)))
        torch.accelerator.synchronize()  # they are read from another stream, by another thread
        return {
            "names": [name for name, _ in self._staged],
            "dtype_names": [str(w.dtype).removeprefix("torch.") for _, w in self._staged],
            "shapes": [list(w.shape) for _, w in self._staged],
        }

    def open(self, world_size: int, timeout_s: float) -> dict[str, Any]:
        """Listen on the configured address; the group itself meets in `transfer`."""
        self.close()
        self._listener = socket.create_server((self._host, 0))
        self._address = {
            "master_address": self._host,
            "master_port": self._listener.getsockname()[1],
            "world_size": world_size,
            "timeout_s": timeout_s,
        }
        packed = {
            "packed": True,
            "packed_buffer_size_bytes": BUFFER_BYTES,
            "packed_num_buffers": BUFFERS,
        }
        return self._address | packed

    def transfer(self, *, meet: bool) -> Callable[[], None]:
        """Meet the receivers of a new group, and broadcast, packed."""
        import torch

        address, group, staged, listener = (
            self._address,
            self._group,
            list(self._staged),
            self._listener,
        )
        if meet:
            self._listener = None  # the store closes it
        device = self._device
        index = torch.accelerator.current_device_index()  # a new thread begins on device 0

        def collective() -> None:
            from vllm.distributed.weight_transfer.packed_tensor import (
                packed_nccl_broadcast_producer,
            )

            with torch.accelerator.device_index(index):
                used = self._meet(address, index, listener) if meet else group
                packed_nccl_broadcast_producer(
                    iterator=iter(staged), group=used, src=0,
                    post_iter_func=lambda item: item[1].to(device, non_blocking=True),
                    buffer_size_bytes=BUFFER_BYTES, num_buffers=BUFFERS,
                )  # fmt: skip
                if used.disabled:  # aborted by `close`: what was left to send went nowhere
                    raise RuntimeError("the group was left")

        return collective

    def _meet(self, address: dict[str, Any], index: int, listener: socket.socket | None) -> Any:
        group = make_group(
            address["master_address"], address["master_port"], rank=0,
            world_size=address["world_size"],
            device=index, timeout_s=address["timeout_s"], listener=listener,
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


@cache
def _engine_class() -> type:
    import torch
    from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

    @dataclass(kw_only=True)
    class NcclInitInfo(NCCLWeightTransferInitInfo):
        timeout_s: float

    class NcclEngine(NCCLWeightTransferEngine):
        """vLLM's own receiver, with deadlines."""

        init_info_cls = NcclInitInfo

        def init_transfer_engine(self, init_info: NcclInitInfo) -> None:
            self.packed = init_info.packed
            self.packed_buffer_size_bytes = init_info.packed_buffer_size_bytes
            self.packed_num_buffers = init_info.packed_num_buffers
            self._timeout_s = init_info.timeout_s
            self.model_update_group = make_group(
                init_info.master_address, init_info.master_port,
                rank=init_info.rank_offset + self.parallel_config.rank,
                world_size=init_info.world_size,
                device=torch.accelerator.current_device_index(), timeout_s=init_info.timeout_s,
            )  # fmt: skip

        def receive_weights(self, update_info: Any) -> None:
            group = self.model_update_group
            watchdog = threading.Timer(
                self._timeout_s, group.destroy
            )  # a peer that is gone is waited for for ever
            watchdog.daemon = True
            watchdog.start()
            try:
                super().receive_weights(update_info)
                torch.accelerator.synchronize()
            finally:
                watchdog.cancel()
            if group.disabled:
                raise RuntimeError(f"the weights did not arrive within {self._timeout_s:.0f} s")

    return NcclEngine


def __getattr__(name: str) -> Any:
    """`NcclEngine`, made when vLLM asks for it: its base class is vLLM's."""
    if name == "NcclEngine":
        return _engine_class()
    raise AttributeError(name)
