"""What roles ask of machines, where each goes, and what is said when there is less."""

from __future__ import annotations

from collections import Counter

import pytest

from sppo import compute, config
from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.launch import room
from sppo.launch.room import Demand, Machine, Seat, demand, enough, parse, seats, staff


def loaded(*overrides: str, preset: str = "quickstart") -> RunConfig:
    return config.load(preset, list(overrides), environment=False)


def on_machines(*gpus: float, cpus: float = 64) -> list[Machine]:
    return [Machine(name=f"m{i}", gpus=n, cpus=cpus) for i, n in enumerate(gpus)]


def gpus_taken(found: dict[str, Seat]) -> dict[str, float]:
    """By machine."""
    taken: Counter[str] = Counter()
    for seat in found.values():
        for machine in seat.machines:
            taken[machine.name] += seat.demand.gpus  # type: ignore[assignment]
    return dict(taken)


def test_demands_follow_the_configuration() -> None:
    gpus = loaded(
        "learner.device=cuda", "learner.ranks=4", "learner.cpus=2",
        "generator.tensor_parallel=2", "generator.cpus=3",
        "scorer.gpus=0.5",
    )  # fmt: skip
    assert demand("learner", gpus) == Demand(gpus=4, cpus=8)
    assert demand("generator", gpus) == Demand(gpus=2, cpus=3)
    assert demand("scorer", gpus) == Demand(gpus=0.5)
    assert demand("learner", loaded("learner.device=cpu")).bundle() == {}


# Every preset on pretended clusters: machines of so many GPUs each, and whether it fits there.
CLUSTERS = {"1x1": (1,), "1x2": (2,), "1x8": (8,), "2x8": (8, 8), "4x4": (4, 4, 4, 4)}
NEEDS = {
    "one-gpu": "1x1",
    "quickstart": "1x2", "quickstart-preferences": "1x2", "gsm8k": "1x2", "math": "1x2",
    "ultrafeedback": "1x2", "two-gpus": "1x2", "paper": "1x8", "math-7b": "1x8",
    "eight-gpus": "1x8", "cluster": "2x8",
}  # fmt: skip
"""The smallest of them that holds it."""


@pytest.mark.parametrize("preset", config.presets())
@pytest.mark.parametrize("name", CLUSTERS)
def test_every_preset_on_every_cluster(preset: str, name: str) -> None:
    order = list(CLUSTERS)
    run = compute.placed(loaded(preset=preset), cuda=True)
    machines = on_machines(*CLUSTERS[name])
    if order.index(name) < order.index(NEEDS[preset]):
        with pytest.raises(ConfigError, match=r"the run asks for \d+ GPUs .*; m|\(m0: "):
            seats(machines, run, staff(run))
        return
    found = seats(machines, run, staff(run))
    asked = sum(each * demand(role, run).gpus for role, each in staff(run).items())
    taken = gpus_taken(found)
    assert sum(taken.values()) == pytest.approx(asked)
    assert all(n <= CLUSTERS[name][int(machine[1:])] for machine, n in taken.items())
    assert set(found) == {f"{role}-{i}" for role, n in staff(run).items() for i in range(n)}


def test_the_largest_goes_first_and_the_small_leave_no_holes() -> None:
    run = loaded(
        "learner.device=cuda", "learner.ranks=8", "generator.replicas=5", "scorer.gpus=0.5",
        "generator.tensor_parallel=2",
    )  # fmt: skip
    found = seats(on_machines(8, 2, 8, 1), run, {"scorer": 2, "generator": 5, "learner": 1})
    assert [m.name for m in found["learner-0"].machines] == ["m0"]
    # A generator on the machine of two, four on the other of eight, both scorers on one GPU
    assert gpus_taken(found) == {"m0": 8, "m1": 2, "m2": 8, "m3": 1}


def test_ranks_that_no_machine_holds_are_spread_evenly_over_as_few_as_do() -> None:
    run = loaded("learner.device=cuda", "learner.ranks=12", "learner.cpus=1")
    found = seats(on_machines(4, 8, 8, 4), run, staff(run))
    assert found["learner-0"].demand == Demand(gpus=6, cpus=6, machines=2)
    assert gpus_taken(found) == {"m1": 7, "m2": 6}
    # An engine of four GPUs on each machine leaves two
    full = loaded(
        "learner.device=cuda", "learner.ranks=4", "generator.replicas=2",
        "generator.tensor_parallel=4",
    )  # fmt: skip
    split = seats(on_machines(6, 6), full, staff(full))["learner-0"]
    assert (split.demand.gpus, [m.name for m in split.machines]) == (2, ["m0", "m1"])
    odd = loaded("learner.device=cuda", "learner.ranks=13")
    with pytest.raises(ConfigError, match=r"learner-0 \(13 GPUs on one machine\)"):
        seats(on_machines(8, 8), odd, staff(odd))


def test_an_engine_that_no_machine_holds_is_on_as_few_as_do() -> None:
    run = loaded(
        "learner.device=cuda", "generator.tensor_parallel=8", "generator.cpus=2",
        "generator.vllm.pipeline_parallel_size=2", "generator.replicas=2",
    )  # fmt: skip
    found = seats(on_machines(8, 8, 8, 8, 1), run, staff(run))
    engine = Demand(gpus=8, cpus=1, machines=2, engine=True)
    assert found["generator-0"].demand == found["generator-1"].demand == engine
    assert [m.name for m in found["generator-1"].machines] == ["m2", "m3"]
    # vLLM has a rank in each bundle, and the cores are the generator's
    assert engine.single() == [{"GPU": 1, "CPU": 1}, *[{"GPU": 1}] * 7]
    assert Demand(gpus=2).single() == [{"GPU": 1}] * 2
    assert len(enough(run, staff(run))) == 5
    # One that fits is on one machine, and rather the learner's ranks are on several
    fits = loaded("learner.device=cuda", "learner.ranks=8", "generator.tensor_parallel=4")
    found = seats(on_machines(4, 4, 4), fits, staff(fits))
    assert (found["generator-0"].demand.engine, len(found["learner-0"].machines)) == (False, 2)


def test_the_copies_of_an_engine_are_on_one_machine() -> None:
    run = loaded("learner.device=cuda", "generator.vllm.data_parallel_size=4")
    assert len(seats(on_machines(4, 1), run, staff(run))["generator-0"].machines) == 1
    with pytest.raises(ConfigError, match=r"generator-0 \(4 GPUs on one machine\)"):
        seats(on_machines(3, 3), run, staff(run))


def test_who_asks_for_nothing_goes_anywhere() -> None:
    run = loaded("learner.device=cpu")
    assert seats([Machine(name="m")], run, staff(run))["learner-0"].machines == ()


def test_more_than_there_is_names_what_was_asked_and_what_is_there() -> None:
    wanted = loaded("learner.device=cuda", "learner.ranks=8", "generator.tensor_parallel=2")
    with pytest.raises(ConfigError) as caught:
        seats(on_machines(4, 4), wanted, {"scorer": 1, "generator": 3, "learner": 1})
    assert str(caught.value) == (
        "the run asks for 14 GPUs (3 generators of 2, 1 learner of 8) and Ray has 8 "
        "(m0: 4 GPUs, 64 CPUs; m1: 4 GPUs, 64 CPUs): lower generator.replicas, or set "
        "learner.device = 'cpu'"
    )


def test_room_that_is_spread_too_thin_names_who_finds_none() -> None:
    wanted = loaded("learner.device=cuda", "generator.tensor_parallel=3")
    with pytest.raises(ConfigError) as caught:
        seats(on_machines(2, 2), wanted, {"generator": 1, "learner": 1})
    assert "generator-0 (3 GPUs on one machine) finds no machine with room" in str(caught.value)
    assert "m1: 2 GPUs" in str(caught.value)
    with pytest.raises(ConfigError, match="and 3 more"):
        seats(on_machines(*[1.5] * 11), wanted, {"generator": 1, "learner": 20})


def test_cores_that_are_set_aside_count_too() -> None:
    wanted = loaded("learner.device=cpu", "generator.cpus=3", "learner.cpus=2")
    counts = {"generator": 2, "learner": 1}
    assert len(seats(on_machines(0, 0, cpus=4), wanted, {"generator": 1, "learner": 1})) == 2
    with pytest.raises(ConfigError, match=r"asks for 8 CPUs \(2 generators of 3, 1 learner of 2\)"):
        seats(on_machines(0, cpus=4), wanted, counts)
    with pytest.raises(ConfigError, match=r"learner-0 \(2 CPUs on one machine\) finds no machine"):
        seats(on_machines(0, 0, cpus=4), wanted, counts)


def test_learner_and_generators_may_share_one_gpu() -> None:
    run = compute.placed(loaded("generator.replicas=3", preset="one-gpu"), cuda=True)
    found = seats(on_machines(1), run, staff(run))
    assert found["learner-0"].demand.gpus == 0.5
    assert 0.999 < sum(gpus_taken(found).values()) <= 1
    assert run.weights.transport == "shared"  # NCCL takes a GPU once
    more = {**staff(run), "generator": 4}
    with pytest.raises(ConfigError, match=r"asks for 1\.1664 GPUs"):
        seats(on_machines(1), run, more)


@pytest.mark.parametrize(
    ("cpus", "machines", "words"),
    [
        (0, 1, "scorer-0 and scorer-1 are on m0"),
        (0, 2, "scorer-0 and scorer-1 may both be on m0"),
        (2, 2, "scorer-0 and scorer-1 are on m0"),
        (3, 2, ""),
    ],
)
def test_two_scorers_with_one_port_are_on_two_machines(
    cpus: int, machines: int, words: str
) -> None:
    run = loaded(
        "learner.device=cpu", "scorer.port=8200", "scorer.mode=http", "scorer.replicas=2",
        f"scorer.cpus={cpus}",
    )  # fmt: skip
    there = on_machines(*[0] * machines, cpus=5)
    if not words:
        assert len(seats(there, run, staff(run))) == 4
        return
    with pytest.raises(ConfigError, match=rf"scorer.port = 8200: {words}.*set scorer.port = 0"):
        seats(there, run, staff(run))


def test_what_one_machine_could_not_hold_is_told_before_anything_starts() -> None:
    given = ("scorer.port=8200", "scorer.mode=http")
    room.check_here(loaded(*given))
    room.check_here(loaded(*given, "scorer.replicas=2", "scorer.url=http://127.0.0.1:1"))
    with pytest.raises(ConfigError, match=r"scorer-0 and scorer-1 are on this machine"):
        room.check_here(loaded(*given, "scorer.replicas=2"))


def test_machines_that_are_not_there() -> None:
    assert [m.gpus for m in parse("2x8")] == [8, 8]
    for wrong in ("2", "0x8", "x", "2x8x2"):
        with pytest.raises(ConfigError, match="--machines"):
            parse(wrong)
    run = loaded(preset="cluster")
    assert len(enough(run, staff(run))) == 2
    assert room.pretended(1, 8)[0].words() == "machine 1: 8 GPUs"
