"""What roles ask of machines, and which machine each of them goes to.

The largest goes first, and each to the machine on which it leaves the least: what is small finds
its place between what is large, never the other way round.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sppo.config import RunConfig
from sppo.errors import ConfigError

USUAL_GPUS = 8
"""Of a machine that nobody has seen yet."""
NAMED = 8
"""Machines that a message lists one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one role's process asks of one machine, or of each of several."""

    gpus: float = 0
    cpus: float = 0
    machines: int = 1
    """Over which it is spread: as much is asked of each."""
    engine: bool = False
    """An engine that is spread: one process, on the first machine, has all of it, and vLLM puts a
    rank on each GPU (ADR 44).
    """

    def bundle(self) -> dict[str, float]:
        """Of one machine, as Ray writes it."""
        return {name: n for name, n in (("GPU", self.gpus), ("CPU", self.cpus)) if n}

    def single(self) -> list[dict[str, float]]:
        """Of one machine, a bundle for each GPU, as vLLM wants them; the first has the cores."""
        first, *others = [{"GPU": 1.0}] * int(self.gpus)
        return [first | {"CPU": self.cpus} if self.cpus else first, *others]

    def words(self) -> str:
        """For a person."""
        amount = " and ".join(f"{n:g} {unit}{'s' * (n != 1)}" for unit, n in self.bundle().items())
        return f"{amount or 'nothing'} on {'one machine' if self.machines == 1 else 'each'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one machine has, for whoever asks."""

    name: str
    gpus: float = 0
    cpus: float = 0
    node: str = ""
    """By which Ray knows it."""

    def left(self, wanted: Demand) -> tuple[float, float]:
        """GPUs and CPUs that are left when `wanted` is here; below 0 if it has no room."""
        return round(self.gpus - wanted.gpus, 6), round(self.cpus - wanted.cpus, 6)

    def words(self) -> str:
        """For a person."""
        has = [f"{n:g} {u}s" for u, n in (("GPU", self.gpus), ("CPU", self.cpus)) if n < math.inf]
        return f"{self.name}: {', '.join(has)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where one process goes."""

    demand: Demand
    machines: tuple[Machine, ...]
    """One for each machine that it is spread over; none where it asks for nothing."""


def demand(role: str, config: RunConfig) -> Demand:
    """Devices and cores of one process of this role; `learner.device` is `cuda` or `cpu` by now."""
    cuda = config.learner.device == "cuda"
    learner, generator, scorer = config.learner, config.generator, config.scorer
    ranks, devices = float(learner.ranks), float(generator.devices)
    if config.launch.share_gpu:
        ranks, devices = 0.5, 5000 // generator.replicas / 10000  # Ray's smallest share
    return {
        "learner": Demand(gpus=ranks * cuda, cpus=learner.ranks * learner.cpus),
        "generator": Demand(gpus=devices * cuda, cpus=generator.cpus),
        "scorer": Demand(gpus=scorer.gpus, cpus=scorer.cpus),
    }[role]


def staff(config: RunConfig) -> dict[str, int]:
    """How many processes of each role a run starts itself."""
    own = config.scorer.mode == "http" and not config.scorer.url
    return {
        "scorer": config.scorer.replicas * own,
        "generator": config.generator.replicas,
        "learner": 1,
    }


def seats(
    machines: Sequence[Machine], config: RunConfig, counts: Mapping[str, int]
) -> dict[str, Seat]:
    """Where so many processes of each role go, by name.

    Raises ConfigError saying what there is, by machine, and what was asked, if they do not fit.
    """
    wanted = {role: demand(role, config) for role in counts}
    _check_sums(machines, wanted, counts)
    lost = []
    for way in _ways(wanted, config, len(machines)):
        found, without = _seated(machines, way, counts)
        if not without:
            at = {n: s.machines or machines for n, s in found.items() if n.startswith("scorer-")}
            _check_port(config, at)  # one that asks for nothing goes anywhere
            return found
        lost.append(without)
    raise ConfigError(
        f"the run asks for {_asked(wanted, counts, 'GPU') or _asked(wanted, counts, 'CPU')}, and "
        f"Ray has {_listed(machines)}; {lost[0]} finds no machine with room: {_MENDS['GPU']}"
    )


def parse(text: str) -> list[Machine]:
    """Machines of a cluster that is not there: `2x8` is two of eight GPUs. Raises ConfigError."""
    found = re.fullmatch(r"(\d{1,4})\s*[x×]\s*(\d{1,3})", text.strip())
    if not found or not int(found[1]):
        raise ConfigError(f"--machines {text!r}: give machines x GPUs of each, such as 2x8")
    return pretended(int(found[1]), int(found[2]))


def pretended(count: int, gpus: float) -> list[Machine]:
    """So many alike, with all the cores that anybody asks for."""
    return [Machine(name=f"machine {i}", gpus=gpus, cpus=math.inf) for i in range(1, count + 1)]


def enough(config: RunConfig, counts: Mapping[str, int], gpus: float = 0) -> list[Machine]:
    """As few machines as hold so many processes, of so many GPUs each, or as many as is usual."""
    engines = counts.get("generator", 0) * config.generator.devices
    for count in range(1, sum(counts.values()) + config.learner.ranks + engines + 1):
        machines = pretended(count, gpus or USUAL_GPUS)
        with suppress(ConfigError):
            seats(machines, config, counts)
            return machines
    return machines


_MENDS = {
    "GPU": "lower generator.replicas, or set learner.device = 'cpu'",
    "CPU": "lower generator.replicas or the cpus of a role (0 sets none aside)",
}


def _check_sums(
    machines: Sequence[Machine], wanted: Mapping[str, Demand], counts: Mapping[str, int]
) -> None:
    for unit, there in (
        ("GPU", sum(m.gpus for m in machines)),
        ("CPU", sum(m.cpus for m in machines)),
    ):
        total = sum(counts[role] * wanted[role].bundle().get(unit, 0) for role in counts)
        if round(total - there, 6) > 0:
            raise ConfigError(
                f"the run asks for {_asked(wanted, counts, unit)} and Ray has {there:g} "
                f"({_listed(machines)}): {_MENDS[unit]}"
            )


def check_here(config: RunConfig) -> None:
    """Raises ConfigError for scorers that this machine alone could not hold."""
    one = Machine(name="this machine")
    scorers = dict.fromkeys((f"scorer-{i}" for i in range(staff(config)["scorer"])), (one,))
    _check_port(config, scorers)


def _check_port(config: RunConfig, scorers: Mapping[str, Sequence[Machine]]) -> None:
    """Raises ConfigError if two that want the same port may be on one machine. `scorers`: where
    each of them is, or may be.
    """
    there: dict[str, str] = {}
    for name, machines in scorers.items() if config.scorer.port else ():
        for machine in machines:
            if other := there.get(machine.name):
                meet = "are" if len(machines) == 1 else "may both be"
                raise ConfigError(
                    f"scorer.port = {config.scorer.port}: {other} and {name} {meet} on "
                    f"{machine.name}, where one of them has that port; set scorer.port = 0, have "
                    "one scorer, or set aside so much (scorer.cpus) that no machine holds two"
                )
        there |= {machine.name: name for machine in machines}


def _ways(
    wanted: Mapping[str, Demand], config: RunConfig, machines: int
) -> Iterator[dict[str, Demand]]:
    """The learner's ranks on one machine, then on ever more, as many on each; then each engine
    on more than one.
    """
    for engine in _parts(wanted["generator"], _spreads(config, wanted), machines):
        engine = replace(engine, engine=engine.machines > 1)
        for part in _parts(wanted["learner"], config.learner.ranks, machines):
            yield {**wanted, "learner": part, "generator": engine}


def _parts(whole: Demand, ranks: int, machines: int) -> Iterator[Demand]:
    for count in range(1, min(ranks, machines) + 1 if whole.bundle() else 2):
        if ranks % count == 0:
            yield replace(whole, gpus=whole.gpus / count, cpus=whole.cpus / count, machines=count)


def _spreads(config: RunConfig, wanted: Mapping[str, Demand]) -> int:
    """Into how many parts an engine may be cut: vLLM cannot place the copies of one through Ray
    where ranks of each are to be on several machines (ADR 44).
    """
    return max(1, int(wanted["generator"].gpus)) if config.generator.copies == 1 else 1


def _seated(
    machines: Sequence[Machine], wanted: Mapping[str, Demand], counts: Mapping[str, int]
) -> tuple[dict[str, Seat], str]:
    """Where each goes, and who finds no place; the rest is then of no use."""
    free = list(machines)
    found = {}
    by_size = sorted(counts, key=lambda name: (-wanted[name].gpus, -wanted[name].cpus))
    everyone = [(role, number) for role in by_size for number in range(counts[role])]
    for role, number in everyone:
        places: list[int] = []
        for _ in range(wanted[role].machines if wanted[role].bundle() else 0):
            at = _best(free, wanted[role], places)
            if at is None:
                return {}, f"{role}-{number} ({wanted[role].words()})"
            gpus, cpus = free[at].left(wanted[role])
            free[at] = replace(free[at], gpus=gpus, cpus=cpus)
            places.append(at)
        there = tuple(machines[at] for at in places)
        found[f"{role}-{number}"] = Seat(demand=wanted[role], machines=there)
    return found, ""


def _best(free: Sequence[Machine], wanted: Demand, taken: Sequence[int]) -> int | None:
    """The machine with room on which it leaves the least."""
    room = [
        (*left, at)
        for at, left in enumerate(machine.left(wanted) for machine in free)
        if min(left) >= 0 and at not in taken
    ]
    return min(room)[-1] if room else None


def _asked(wanted: Mapping[str, Demand], counts: Mapping[str, int], unit: str) -> str:
    """Empty if nobody asks for this."""
    each = {role: wanted[role].bundle().get(unit, 0) for role in counts if counts[role]}
    parts = ", ".join(
        f"{counts[role]} {role}{'s' * (counts[role] > 1)} of {n:g}" for role, n in each.items() if n
    )
    total = sum(counts[role] * n for role, n in each.items())
    return f"{total:g} {unit}s ({parts})" if parts else ""


def _listed(machines: Iterable[Machine]) -> str:
    words = [machine.words() for machine in machines]
    more = [f"and {len(words) - NAMED} more"] if len(words) > NAMED else []
    return "; ".join(words[:NAMED] + more) or "no machine"
