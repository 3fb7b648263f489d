"""Which ranks share a model: all of them, or those of a machine, each machine with a copy.

    shard = "all"        rank 0 1 2 3 | 4 5 6 7     eight shards
    shard = "machine"    rank 0 1 2 3               four shards; gradients are summed along rows,
                         rank 4 5 6 7               then along columns

The ranks of a machine have consecutive numbers, as torchrun and Slurm's block distribution give
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from sppo.errors import ConfigError

# torch.distributed is not fully typed.
_dist: Any = torch.distributed


def of(device: str, size: int, machine: int, timeout: timedelta) -> Any:
    """The mesh of all `size` ranks, which all call this: in rows of `machine` ranks if that is
    fewer. A collective along a row or a column may take `timeout`.
    """
    from torch.distributed.device_mesh import DeviceMesh

    if machine in (0, size):
        return DeviceMesh.from_group(_dist.group.WORLD, device)
    ranks = torch.arange(size).view(size // machine, machine)
    groups = [  # init_device_mesh knows torch's own time-outs alone
        _dist.new_subgroups_by_enumeration(lines.tolist(), timeout=timeout)[0]
        for lines in (ranks.T, ranks)
    ]
    return DeviceMesh.from_group(groups, device, ranks, mesh_dim_names=("machines", "ranks"))


def check(joined: Sequence[Mapping[str, Any]], machine: int) -> None:
    """`joined`: of each rank, by number, its `host` and its `machine`. Raises ConfigError where
    they disagree about the mesh, or where ranks that are to share a model are on several machines.
    """
    for rank, each in enumerate(joined):
        if each["machine"] != joined[0]["machine"]:
            raise ConfigError(
                f"learner.shard: rank 0 has {_ranks(joined[0]['machine'])} and rank {rank} "
                f"{_ranks(each['machine'])}; start all ranks with the same configuration and "
                "LOCAL_WORLD_SIZE"
            )
    for first in range(0, len(joined), machine) if machine else ():
        hosts = sorted({each["host"] for each in joined[first : first + machine]})
        if len(hosts) > 1:
            raise ConfigError(
                f"learner.shard = 'machine': ranks {first} to {first + machine - 1} "
                f"(LOCAL_WORLD_SIZE = {machine}) are on {' and '.join(hosts)}; number the ranks of "
                "a machine one after the other (srun --distribution=block), or set "
                "learner.shard = 'all'"
            )


def _ranks(machine: int) -> str:
    return f"shards over {machine} ranks of a machine" if machine else "shards over all ranks"
