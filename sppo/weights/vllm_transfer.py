"""vLLM's weight transfer: the gloo engine that we register with vLLM, and the learner's end of vLLM's own NCCL engine.

vLLM loads `register` in each of its processes through the `vllm.general_plugins` entry point. This is the only module
besides `sppo.generators.vllm_engine` that imports vLLM. The NCCL lines are written against vLLM 0.32.0's source and
have not been run on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sppo import marks


def register() -> None:
    """Entry point: make `gloo` known to vLLM's factory. vLLM calls it once in each process, or more."""
    marks.name_shared_memory()
    marks.ignore_interrupts()
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if "gloo" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("gloo", _engine_class())


def _engine_class() -> type:
    import torch
    from vllm.distributed.weight_transfer.base import (
        WeightTransferEngine,
        WeightTransferInitInfo,
        WeightTransferUpdateInfo,
    )
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    from sppo.weights.gloo import GlooReceiver

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
            # A CPU keeps a packed copy of the head for its product. A tied head receives no weights of its own, so vLLM
            # 0.32 leaves the copy as it was: the engine would sample with the head of the base model for ever.
            for module in self.model.modules():
                if isinstance(module, ParallelLMHead):
                    module.quant_method.process_weights_after_loading(module)

        def update_weights(self, update_info: dict[str, Any]) -> None:
            # vLLM's version ends with an accelerator synchronisation, which a CPU has not.
            self.receive_weights(self.parse_update_info(update_info))

        def receive_weights(self, update_info: GlooUpdateInfo) -> None:
            if self._receiver is None:
                raise RuntimeError("weights announced before this engine joined a group")
            weights = self._receiver.receive(
                names=update_info.names,
                dtype_names=update_info.dtype_names,
                shapes=update_info.shapes,
                digests=update_info.digests,
            )
            initialize_layerwise_reload(self.model)
            self.model.load_weights((name, w.to(torch.device(self.device))) for name, w in weights)

        def shutdown(self) -> None:
            if self._receiver is not None:
                self._receiver.close()
                self._receiver = None

    return GlooTransferEngine


class NcclSender:
    """The learner's end of vLLM's NCCL transfer, packed; see `sppo.weights.protocol.WeightSender`."""

    def __init__(self, host: str, device: str) -> None:
        self._host, self._device = host, device
        self._group: Any = None
        self._staged: list[tuple[str, Tensor]] = []
        self._address: dict[str, Any] = {}

    def stage(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
        """Copies on the GPU: the learner's next step may overwrite its own, and a snapshot may lie in host memory."""
        self._staged = [(name, w.detach().to(self._device, copy=True)) for name, w in weights]
        return {
            "names": [name for name, _ in self._staged],
            "dtype_names": [str(w.dtype).removeprefix("torch.") for _, w in self._staged],
            "shapes": [list(w.shape) for _, w in self._staged],
        }

    def open(self, world_size: int, timeout_s: float) -> dict[str, Any]:
        """Choose a port; the group itself meets in `transfer`."""
        from vllm.utils.network_utils import get_open_port

        self.close()
        self._address = {"master_address": self._host, "master_port": get_open_port(), "world_size": world_size}
        return self._address | {"packed": True}

    def transfer(self, *, meet: bool) -> Callable[[], None]:
        """Meet the receivers of a new group (vLLM's rendezvous has a deadline of its own), and broadcast, packed."""
        address, group, staged = self._address, self._group, list(self._staged)

        def collective() -> None:
            import torch
            from vllm.distributed.weight_transfer.nccl_common import stateless_init_process_group
            from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

            used = group
            if meet:
                used = stateless_init_process_group(
                    address["master_address"], address["master_port"], 0, address["world_size"], self._device
                )
                if self._address is not address:
                    raise RuntimeError("this group was given up while it met")
                self._group = used
            packed_nccl_broadcast_producer(
                iterator=iter(staged), group=used, src=0, post_iter_func=lambda item: item[1]
            )
            torch.cuda.current_stream().synchronize()

        return collective

    def close(self) -> None:
        """Leave the group."""
        self._address = {}
        if self._group is not None:
            self._group.destroy()
            self._group = None
