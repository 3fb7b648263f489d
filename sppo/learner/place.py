"""Which rank of a learner this process is, where its ranks are started by hand, torchrun or Slurm.

    RANK=1 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 sppo-cli learner my.toml

The names are torchrun's. Under Slurm they are $SLURM_PROCID, $SLURM_NTASKS and $SLURM_LOCALID. With
`learner.shard = "machine"` LOCAL_WORLD_SIZE says how many ranks a machine has
($SLURM_NTASKS_PER_NODE).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sppo.config import RunConfig, is_loopback
from sppo.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One rank among others that are started by hand."""

    rank: int
    size: int
    local: int
    """Number among the ranks of its machine: of its GPU."""
    address: str
    """Of rank 0's machine."""
    port: int
    machine: int = 0
    """Ranks of each machine, where these share a model; 0 where all do (`sppo.learner.mesh`)."""


def find(config: RunConfig, environment: Mapping[str, str]) -> Place | None:
    """This process's, by its environment; None where that names no rank.

    Raises ConfigError for a variable that is missing or makes no sense beside the settings.
    """
    if "RANK" not in environment:
        return None
    numbers = [_number(environment, name) for name in ("RANK", "WORLD_SIZE")]
    rank, size = numbers
    if rank >= size:
        raise ConfigError(f"RANK = {rank} is none of WORLD_SIZE = {size} ranks, counted from 0")
    if size != config.learner.ranks:
        raise ConfigError(
            f"learner.ranks = {config.learner.ranks}, and WORLD_SIZE = {size} are started; set "
            f"learner.ranks = {size}"
        )
    if size == 1:
        return None
    address = environment.get("MASTER_ADDR", "")
    if not address:
        raise ConfigError(
            "RANK is set and MASTER_ADDR is not: set it to the address of rank 0's machine"
        )
    if not is_loopback(address) and not config.weights.trusted_network:
        raise ConfigError(
            f"MASTER_ADDR = {address}: ranks talk unencrypted; if only this run's machines reach "
            "that network: weights.trusted_network = true"
        )
    return Place(
        rank=rank, size=size, local=_number(environment, "LOCAL_RANK"), address=address,
        port=_number(environment, "MASTER_PORT"),
        machine=_machine(environment, size) if config.learner.shard == "machine" else 0,
    )  # fmt: skip


def _machine(environment: Mapping[str, str], size: int) -> int:
    """Ranks of each machine. Raises ConfigError where machines would have unequal numbers."""
    if "LOCAL_WORLD_SIZE" not in environment:
        raise ConfigError(
            "learner.shard = 'machine': set LOCAL_WORLD_SIZE to the number of ranks on each "
            "machine, or learner.shard = 'all'"
        )
    found = _number(environment, "LOCAL_WORLD_SIZE")
    if not found or size % found:
        raise ConfigError(
            f"LOCAL_WORLD_SIZE = {found}: learner.shard = 'machine' takes equally many ranks on "
            f"each machine, and learner.ranks = {size} is no multiple; set learner.shard = 'all'"
        )
    return 0 if found == size else found


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise ConfigError(f"RANK is set and {name} = {text!r}: set it to a number")
    return int(text)
