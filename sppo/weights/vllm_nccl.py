"""vLLM's side of a weight transfer over NCCL: an engine of ours for its factory.

Loaded by vLLM in its workers, by the name that `sppo.weights.vllm_transfer` registered. A GPU has
no place for the model twice, so what arrived is loaded before the next bucket is received.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo

from sppo.errors import TransferAborted
from sppo.weights.buckets import Bucket, buckets
from sppo.weights.nccl import here, make_group, receive
from sppo.weights.protocol import ABORTED
from sppo.weights.vllm_reload import Reloading


@dataclass(kw_only=True)
class NcclInitInfo(WeightTransferInitInfo):
    master_address: str
    master_port: int
    rank_offset: int
    world_size: int
    timeout_s: float
    bucket_bytes: int


@dataclass(kw_only=True)
class NcclUpdateInfo(WeightTransferUpdateInfo):
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


class NcclEngine(Reloading):
    """Receives checkpoint-format weights over NCCL, a bucket at a time."""

    init_info_cls = NcclInitInfo
    update_info_cls = NcclUpdateInfo
    _group: Any = None
    _coming: list[Bucket]

    def init_transfer_engine(self, init_info: NcclInitInfo) -> None:
        self._bucket_bytes, self._timeout_s = init_info.bucket_bytes, init_info.timeout_s
        self._device = here(torch.device(self.device))
        self._group = make_group(
            init_info.master_address, init_info.master_port,
            rank=init_info.rank_offset + self.number,
            world_size=init_info.world_size,
            device=self._device, timeout_s=init_info.timeout_s,
        )  # fmt: skip

    def begin(self, update: dict[str, Any]) -> int:
        info = self.parse_update_info(update)
        self._in_hand = ()
        limit = getattr(self, "_bucket_bytes", 1)
        self._coming = buckets(**asdict(info), limit=limit)
        return len(self._coming)

    def receive(self) -> None:
        if self._group is None:
            raise TransferAborted(f"{ABORTED}: weights announced before this engine joined a group")
        bucket = self._coming.pop(0)
        flat = receive(
            self._group, bucket.nbytes, self._device,
            piece_bytes=self._bucket_bytes, timeout_s=self._timeout_s,
        )  # fmt: skip
        self._in_hand = bucket.unpack(flat)

    def shutdown(self) -> None:
        if self._group is not None:
            self._group.destroy()
            self._group = None
