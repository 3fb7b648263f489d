"""What we add to vLLM for weight transfers: the names of three engines, over gloo
(`sppo.weights.vllm_gloo`), over NCCL (`sppo.weights.vllm_nccl`) and through shared memory
(`sppo.weights.vllm_shared`), and the steps of a transfer.

vLLM loads `register` in each of its processes through the `vllm.general_plugins` entry point. vLLM
is imported here, in those, in what they share and in `sppo.generators.vllm_engine` alone.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from sppo import marks, stop
from sppo.errors import TransferAborted

BACKENDS = {"gloo": "gloo", "nccl": "sppo_nccl", "shared": "sppo_shared"}
"""Our engine of each `weights.transport`, by its name in vLLM's registry."""
NAP_S = 1e-3
"""How long a waiting process of vLLM sleeps on a CPU before it looks again."""


def register() -> None:
    """Entry point: make our engines known to vLLM's factory. vLLM calls it once in each process, or
    more.
    """
    marks.name_shared_memory()
    marks.ignore_interrupts()
    stop.end_with_founder()  # a killed `eval` or generator leaves no engine behind
    _sparing_on_a_cpu()
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if "gloo" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(
            "gloo", "sppo.weights.vllm_gloo", "GlooTransferEngine"
        )
        WeightTransferEngineFactory.register_engine(
            BACKENDS["nccl"], "sppo.weights.vllm_nccl", "NcclEngine"
        )
        WeightTransferEngineFactory.register_engine(
            BACKENDS["shared"], "sppo.weights.vllm_shared", "SharedTransferEngine"
        )


def _sparing_on_a_cpu() -> None:
    """On a CPU, have vLLM's processes sleep while they wait for each other, and compile nothing.

    For a second after each message vLLM 0.32 yields the core in a loop: where the cores are the
    device, that takes the time of those that compute. (Its other way, to wait for a notice, may
    miss one and then waits for seconds.) And at its first sample torch and a C++ compiler make one
    function, of the sampled tokens' ranks, for which nobody here asks.
    """
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.platforms import current_platform
    from vllm.v1.sample.ops import logprobs

    if current_platform.is_cpu():
        shm_broadcast.sched_yield = lambda: time.sleep(NAP_S)
        counts = logprobs.batched_count_greater_than
        logprobs.batched_count_greater_than = getattr(counts, "_torchdynamo_orig_callable", counts)


class Steps:
    """Added to vLLM's worker (`worker_extension_cls`): steps of a transfer that answer with why
    they were aborted.

    Raising would not do. With several ranks vLLM's executor (0.32) stops reading at the first that
    failed, and takes the answers of the others for those of later calls.
    """

    def sppo_host(self: Any) -> str:
        """The name of this rank's machine."""
        return socket.gethostname()

    def sppo_join(self: Any, join: dict[str, Any]) -> str:
        """Join the group that the learner opened, leaving an earlier one; returns why it did not
        meet, or nothing.
        """
        try:
            self.shutdown_weight_transfer_engine()
            self.init_weight_transfer_engine(join)
        except TransferAborted as error:
            return str(error)
        return ""

    def sppo_begin(self: Any, update: dict[str, Any]) -> int:
        """Say what comes; returns in how many buckets."""
        count: int = self.weight_transfer_engine.begin(update)
        return count

    def sppo_receive(self: Any) -> str:
        """Take the next bucket in hand; returns why it did not arrive, or nothing."""
        try:
            self.weight_transfer_engine.receive()
        except TransferAborted as error:
            return str(error)
        return ""

    def sppo_load(self: Any) -> None:
        """Load what is in hand."""
        if not self._weight_update_active:
            self.start_weight_update()
        self.update_weights({})

    def sppo_finish(self: Any) -> None:
        """Everything is loaded."""
        self.finish_weight_update()

    def sppo_undo(self: Any) -> None:
        """A transfer broke off after a part was loaded: be ready for a whole one."""
        self.weight_transfer_engine.undo()
        self.weight_transfer_engine.reset_weight_update_target()
        self._weight_update_active = False
