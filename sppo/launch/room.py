"""What roles ask of machines, and whether there is as much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sppo.config import RunConfig
from sppo.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one role's process asks of one machine."""

    gpus: float = 0
    cpus: float = 0

    def bundle(self) -> dict[str, float]:
        """As Ray writes it."""
        return {name: n for name, n in (("GPU", self.gpus), ("CPU", self.cpus)) if n}


def demand(role: str, config: RunConfig) -> Demand:
    """Devices and cores of one process of this role; `learner.device` is `cuda` or `cpu` by now."""
    cuda = config.learner.device == "cuda"
    learner, generator, scorer = config.learner, config.generator, config.scorer
    return {
        "learner": Demand(gpus=learner.ranks * cuda, cpus=learner.ranks * learner.cpus),
        "generator": Demand(gpus=generator.tensor_parallel * cuda, cpus=generator.cpus),
        "scorer": Demand(gpus=scorer.gpus, cpus=scorer.cpus),
    }[role]


def check_room(have: Demand, config: RunConfig, counts: Mapping[str, int]) -> None:
    """Raises ConfigError saying what there is and what was asked, if so many processes of each role
    do not fit.
    """
    each = {role: demand(role, config) for role in counts}
    for unit, mend in (
        ("GPU", "lower generator.replicas, or set learner.device = 'cpu'"),
        ("CPU", "lower generator.replicas or the cpus of a role (0 sets none aside)"),
    ):
        asked = {role: counts[role] * each[role].bundle().get(unit, 0) for role in counts}
        there = have.bundle().get(unit, 0)
        if sum(asked.values()) > there:
            parts = ", ".join(
                f"{counts[role]} {role}{'s' * (counts[role] > 1)} of {each[role].bundle()[unit]:g}"
                for role, n in asked.items()
                if n
            )
            raise ConfigError(
                f"the run asks for {sum(asked.values()):g} {unit}s ({parts}) and Ray has "
                f"{there:g}: {mend}"
            )
