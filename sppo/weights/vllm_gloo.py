"""vLLM's side of a weight transfer over gloo: an engine of ours for its factory.

Loaded by vLLM in its workers, by the name that `sppo.weights.vllm_transfer` registered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from sppo.errors import TransferAborted
from sppo.weights.gloo import GlooReceiver
from sppo.weights.protocol import ABORTED


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


class GlooTransferEngine(WeightTransferEngine):
    """Receives checkpoint-format weights over gloo and loads them layer by layer."""

    init_info_cls = GlooInitInfo
    update_info_cls = GlooUpdateInfo
    _receiver: GlooReceiver | None = None
    _fetched: list[tuple[str, Tensor]] | None = None
    _unpacked: Sequence[Any] = ()

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        self._receiver = GlooReceiver()
        self._receiver.join(
            master_address=init_info.master_address,
            master_port=init_info.master_port,
            rank=init_info.rank_offset + self.parallel_config.rank,
            world_size=init_info.world_size,
            timeout_s=init_info.timeout_s,
            own_host=init_info.own_host,
        )

    def start_weight_update(self) -> None:
        """Nothing yet: the model stays as it is until every weight has arrived."""

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        if any(method.moe_kernel is None for method in self._unpacked):
            raise RuntimeError(f"vLLM loaded no experts into its {type(self.model).__name__}")
        # A CPU keeps a packed copy of the head for its product. A tied head receives no weights
        # of its own, so vLLM 0.32 leaves the copy as it was: the engine would sample with the
        # head of the base model for ever.
        for module in self.model.modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)

    def _packed_experts(self) -> list[Any]:
        if torch.device(self.device).type != "cpu":
            return []
        methods = [getattr(module, "quant_method", None) for module in self.model.modules()]
        return [method for method in methods if getattr(method, "moe_kernel", None) is not None]

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # vLLM's version ends with an accelerator synchronisation, which a CPU has not.
        self.receive_weights(self.parse_update_info(update_info))

    def fetch(self, update: dict[str, Any]) -> None:
        """Receive, without touching the model. Raises TransferAborted."""
        if self._receiver is None:
            raise TransferAborted(f"{ABORTED}: weights announced before this engine joined a group")
        info = self.parse_update_info(update)
        self._fetched = None
        self._fetched = self._receiver.receive(
            names=info.names,
            dtype_names=info.dtype_names,
            shapes=info.shapes,
            digests=info.digests,
        )

    def receive_weights(self, update_info: GlooUpdateInfo) -> None:
        assert self._fetched is not None, "fetch() comes first"
        weights, self._fetched = self._fetched, None
        # A CPU packs experts for its kernel when that is first set up. At a reload vLLM 0.32
        # finds the kernel there and leaves out the packing: unpacked weights would be read as
        # packed ones.
        self._unpacked = self._packed_experts()
        for method in self._unpacked:
            method.moe_kernel = None
        initialize_layerwise_reload(self.model)
        self.model.load_weights((name, w.to(torch.device(self.device))) for name, w in weights)

    def shutdown(self) -> None:
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None
