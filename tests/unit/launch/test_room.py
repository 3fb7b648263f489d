"""What roles ask of machines, and what is said when there is less."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.launch.room import Demand, check_room, demand


def loaded(*overrides: str) -> RunConfig:
    return config.load("quickstart", list(overrides), environment=False)


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


def test_what_fits_is_let_through() -> None:
    wanted = loaded("learner.device=cuda", "learner.ranks=2")
    check_room(Demand(gpus=4, cpus=1), wanted, {"learner": 1, "generator": 2, "scorer": 1})


def test_more_than_there_is_names_what_was_asked_and_what_is_there() -> None:
    wanted = loaded("learner.device=cuda", "learner.ranks=8", "generator.tensor_parallel=2")
    with pytest.raises(ConfigError) as caught:
        check_room(Demand(gpus=8), wanted, {"scorer": 1, "generator": 3, "learner": 1})
    assert "asks for 14 GPUs (3 generators of 2, 1 learner of 8) and Ray has 8" in str(caught.value)
    assert "generator.replicas" in str(caught.value)


@pytest.mark.parametrize("preset", config.presets())
def test_every_preset_loads_and_plans_without_a_gpu(preset: str) -> None:
    from pathlib import Path

    from sppo.launch import plan

    lines = plan.describe(config.load(preset, environment=False), Path("runs/x"))
    assert any(line.startswith("generators") for line in lines)
    if preset in ("math-7b", "cluster"):
        assert f"{4 if preset == 'math-7b' else 16} GPUs in all" in "\n".join(lines)
