"""On the path of every process of a pretended cluster: vLLM's CPU platform tells Ray that its
devices are GPUs, and ranks of one engine talk through the network, not through the shared memory
that pretended machines have in common.
"""

import contextlib
import importlib.util
import sys

PLATFORM = "vllm.platforms.cpu"
COMMUNICATOR = "vllm.distributed.device_communicators.cpu_communicator"


class Changed:
    """Finds these two modules where they are, and changes a name in each when it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name not in (PLATFORM, COMMUNICATOR):
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        load = spec.loader.exec_module

        def load_and_change(module):
            load(module)
            if name == PLATFORM:
                module.CpuPlatform.ray_device_key = "GPU"
            else:
                kind = module.CpuCommunicator
                kind._all_group_ranks_share_shm_group_name = lambda self: False

        spec.loader.exec_module = load_and_change
        return spec


sys.meta_path.insert(0, Changed())
with contextlib.suppress(ImportError):
    import sppo  # noqa: F401 - hides builds for another torch
