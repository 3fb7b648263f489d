"""vLLM's side of a weight transfer over gloo: an engine of ours for its factory.

Loaded by vLLM in its workers, by the name that `sppo.weights.vllm_transfer` registered. Everything
arrives before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo

from sppo.errors import TransferAborted
from sppo.weights.gloo import GlooReceiver
from sppo.weights.protocol import ABORTED
from sppo.weights.vllm_reload import Reloading


@dataclass(kw_only=True)
class GlooInitInfo(WeightTransferInitInfo):
    master_address: str
    master_port: int
    rank_offset: int
    world_size: int
    timeout_s: float
    own_host: str


@dataclass(kw_only=True)
class GlooUpdateInfo(WeightTransferUpdateInfo):
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    digests: list[str]


class GlooTransferEngine(Reloading):
    """Receives checkpoint-format weights over gloo and loads them layer by layer."""

    init_info_cls = GlooInitInfo
    update_info_cls = GlooUpdateInfo
    _receiver: GlooReceiver | None = None
    _arriving: Iterator[list[tuple[str, Tensor]]] = iter(())

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        self._receiver = GlooReceiver()
        self._receiver.join(
            master_address=init_info.master_address,
            master_port=init_info.master_port,
            rank=init_info.rank_offset + self.number,
            world_size=init_info.world_size,
            timeout_s=init_info.timeout_s,
            own_host=init_info.own_host,
        )

    def begin(self, update: dict[str, Any]) -> int:
        info = self.parse_update_info(update)
        self._in_hand = ()
        self._arriving = iter(()) if self._receiver is None else self._receiver.each(**asdict(info))
        return len(info.digests)

    def receive(self) -> None:
        arrived = next(self._arriving, None)
        if arrived is None:
            raise TransferAborted(f"{ABORTED}: weights announced before this engine joined a group")
        self._in_hand = [*self._in_hand, *arrived]

    def shutdown(self) -> None:
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None
