"""On the path of every process of a test (PYTHONPATH), what vLLM 0.32 lacks on a CPU, so that an
engine of several machines or copies runs on one:

- its platform tells Ray that its devices are GPUs;
- ranks of one engine talk through the network, not through the shared memory that pretended
  machines have in common;
- copies of a mixture exchange tokens: vLLM has that for GPUs alone.
"""

import contextlib
import importlib.util
import sys

PLATFORM = "vllm.platforms.cpu"
COMMUNICATOR = "vllm.distributed.device_communicators.cpu_communicator"


class Changed:
    """Finds these two modules where they are, and changes names in each when it is loaded."""

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
                kind.all_gatherv, kind.reduce_scatterv = all_gatherv, reduce_scatterv

        spec.loader.exec_module = load_and_change
        return spec


def all_gatherv(self, given, dim=0, sizes=None):
    """Rows of all ranks, `sizes` of each, one rank after the other."""
    import torch

    def gathered(own):
        rows = sizes or [own.shape[0]] * self.world_size
        parts = [own.new_empty((count, *own.shape[1:])) for count in rows]
        parts[self.rank_in_group] = own.contiguous()
        for source, part in zip(self.ranks, parts, strict=True):
            torch.distributed.broadcast(part, source, group=self.device_group)
        return torch.cat(parts)

    assert dim == 0
    return [gathered(each) for each in given] if isinstance(given, list) else gathered(given)


def reduce_scatterv(self, given, dim=-1, sizes=None):
    """This rank's rows of the sum."""
    import torch

    assert dim == 0
    total = given.clone()
    torch.distributed.all_reduce(total, group=self.device_group)
    rows = sizes or [total.shape[0] // self.world_size] * self.world_size
    return total.split(rows)[self.rank_in_group].contiguous()


sys.meta_path.insert(0, Changed())
with contextlib.suppress(ImportError):
    import sppo  # noqa: F401 - hides builds for another torch
