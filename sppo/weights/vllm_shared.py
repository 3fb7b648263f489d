"""vLLM's side of a weight transfer through shared memory: an engine of ours for its factory.

Loaded by vLLM in its workers, by the name that `sppo.weights.vllm_transfer` registered. vLLM's own
engine for CUDA IPC pickles its handles; this one is given numbers and text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo

from sppo.errors import TransferAborted
from sppo.weights.protocol import ABORTED
from sppo.weights.shared import SharedReceiver
from sppo.weights.vllm_reload import Reloading


@dataclass(kw_only=True)
class SharedInitInfo(WeightTransferInitInfo):
    master_address: str
    master_port: int
    rank_offset: int
    world_size: int
    timeout_s: float
    own_host: str
    bucket_bytes: int
    slots: list[dict[str, Any]]


@dataclass(kw_only=True)
class SharedUpdateInfo(WeightTransferUpdateInfo):
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    sums: list[int]


class SharedTransferEngine(Reloading):
    """Takes checkpoint-format weights from the learner's memory, a bucket at a time."""

    init_info_cls = SharedInitInfo
    update_info_cls = SharedUpdateInfo
    _receiver: SharedReceiver | None = None
    _arriving: Iterator[list[tuple[str, Tensor]]] = iter(())

    def init_transfer_engine(self, init_info: SharedInitInfo) -> None:
        self._receiver = SharedReceiver(torch.device(self.device))
        address = asdict(init_info)
        rank = address.pop("rank_offset") + self.number
        self._receiver.join(rank=rank, **address)

    def begin(self, update: dict[str, Any]) -> int:
        info = self.parse_update_info(update)
        self._in_hand = ()
        self._arriving = iter(()) if self._receiver is None else self._receiver.each(**asdict(info))
        return len(info.sums)

    def receive(self) -> None:
        arrived = next(self._arriving, None)
        if arrived is None:
            raise TransferAborted(f"{ABORTED}: weights announced before this engine joined a group")
        self._in_hand = arrived

    def shutdown(self) -> None:
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None
