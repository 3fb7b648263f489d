"""What vLLM's workers do with weights that arrived, over whichever transport: vLLM's layerwise
reload, and what it leaves out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import WeightTransferEngine
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)
from vllm.model_executor.model_loader.reload.layerwise import (
    _place_kernel_tensors,
    get_layerwise_info,
)


class Reloading(WeightTransferEngine):
    """Receives bucket by bucket (`begin`, `receive`) and loads what it has in hand when asked.

    buckets = engine.begin(update)
    for _ in range(buckets): engine.receive()           # touches nothing
    engine.start_weight_update(); engine.update_weights({}); engine.finish_weight_update()
    """

    _unpacked: Sequence[Any] = ()
    _in_hand: Sequence[tuple[str, Tensor]] = ()

    @property
    def number(self) -> int:
        """Of this rank among the generator's."""
        each = self.parallel_config
        return int(each.data_parallel_index * each.world_size + each.rank)

    @abstractmethod
    def begin(self, update: dict[str, Any]) -> int:
        """What comes next; returns in how many buckets."""

    @abstractmethod
    def receive(self) -> None:
        """Take the next bucket in hand. Raises TransferAborted."""

    def start_weight_update(self) -> None:
        # A CPU packs experts for its kernel when that is first set up. At a reload vLLM 0.32
        # finds the kernel there and leaves out the packing: unpacked weights would be read as
        # packed ones.
        self._unpacked = [*(m for m in self._unpacked if m.moe_kernel is None), *self._packed()]
        for method in self._unpacked:
            method.moe_kernel = None
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load what is in hand, all of the model or a part."""
        weights, self._in_hand = self._in_hand, ()
        device = torch.device(self.device)
        with disable_mtp_completeness_check():
            self.model.load_weights((name, w.to(device)) for name, w in weights)
        if device.type != "cpu":
            torch.accelerator.synchronize()  # what they were loaded from is overwritten next

    def receive_weights(self, update_info: Any) -> None:
        """vLLM's own way in; `update_weights` stands for it."""
        raise NotImplementedError

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

    def undo(self) -> None:
        """Give up a reload that began: a layer that has not come whole is as it was before, and
        the next reload finds the model in order. Layers that have come stay: a mixture.
        """
        self._in_hand = ()
        for layer in self.model.modules():
            info = get_layerwise_info(layer)
            if info.can_load():
                if info.kernel_tensors is not None:
                    _place_kernel_tensors(layer, info)
                info.reset()

    def _packed(self) -> list[Any]:
        if torch.device(self.device).type != "cpu":
            return []
        methods = [getattr(module, "quant_method", None) for module in self.model.modules()]
        return [method for method in methods if getattr(method, "moe_kernel", None) is not None]
