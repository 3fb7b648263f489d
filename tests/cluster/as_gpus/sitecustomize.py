"""On the path of every process of a pretended cluster: vLLM's CPU platform tells Ray that its
devices are GPUs, and ranks of one engine talk through the network, not through the shared memory
that pretended machines have in common.
"""

import contextlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType

PLATFORM = "vllm.platforms.cpu"
COMMUNICATOR = "vllm.distributed.device_communicators.cpu_communicator"


class Changed(MetaPathFinder, Loader):
    """Loads these two modules as they are, and changes one name in each."""

    def find_spec(self, name, path, target=None):
        if name not in (PLATFORM, COMMUNICATOR):
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        self._own = spec.loader
        return importlib.util.spec_from_loader(name, self, origin=spec.origin)

    def exec_module(self, module: ModuleType) -> None:
        source = self._own.get_source(module.__name__)
        exec(compile(source, module.__spec__.origin, "exec"), module.__dict__)
        if module.__name__ == PLATFORM:
            module.CpuPlatform.ray_device_key = "GPU"
        else:
            apart = lambda self: False  # noqa: E731
            module.CpuCommunicator._all_group_ranks_share_shm_group_name = apart


sys.meta_path.insert(0, Changed())
with contextlib.suppress(ImportError):
    import sppo  # noqa: F401
