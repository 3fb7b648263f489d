"""Which rank a process is, by its environment."""

from __future__ import annotations

import pytest

from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.learner import place
from sppo.learner.place import Place
from tests import makers

TWO = {
    "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}  # fmt: skip


def run(ranks: int = 2, *, trusted: bool = False, shard: str = "all") -> RunConfig:
    learner = {"ranks": ranks, "shard": shard}
    return makers.run_config(learner=learner, weights={"trusted_network": trusted})


def test_it_is_what_torchrun_sets() -> None:
    found = place.find(run(), TWO)
    assert found == Place(rank=1, size=2, local=0, address="127.0.0.1", port=29500)


def test_without_it_the_learner_starts_its_ranks_itself() -> None:
    assert place.find(run(), {}) is None
    assert place.find(run(1), TWO | {"RANK": "0", "WORLD_SIZE": "1"}) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"RANK": "2"}, r"RANK = 2 is none of WORLD_SIZE = 2 ranks"),
        ({"WORLD_SIZE": "3"}, r"learner.ranks = 2, and WORLD_SIZE = 3 .*; set learner.ranks = 3"),
        ({"WORLD_SIZE": ""}, r"WORLD_SIZE = ''.*: set it to a number"),
        ({"LOCAL_RANK": "x"}, r"LOCAL_RANK = 'x'"),
        ({"MASTER_PORT": ""}, r"MASTER_PORT = ''"),
        ({"MASTER_ADDR": ""}, r"MASTER_ADDR is not: set it"),
        ({"MASTER_ADDR": "10.0.0.1"}, r"10.0.0.1: ranks talk unencrypted.*trusted_network = true"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_mend(changed: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        place.find(run(), TWO | changed)


def test_other_machines_need_a_trusted_network() -> None:
    found = place.find(run(trusted=True), TWO | {"MASTER_ADDR": "10.0.0.1"})
    assert found is not None
    assert found.address == "10.0.0.1"


def test_with_a_copy_on_each_machine_it_knows_how_many_ranks_share_one() -> None:
    four, each = TWO | {"WORLD_SIZE": "4"}, "LOCAL_WORLD_SIZE"

    def machine(shard: str, ranks: str) -> int:
        found = place.find(run(4, shard=shard), four | {each: ranks})
        assert found is not None
        return found.machine

    assert [machine("machine", "2"), machine("machine", "1")] == [2, 1]
    assert [machine("machine", "4"), machine("all", "2"), machine("all", "")] == [0, 0, 0]
    with pytest.raises(ConfigError, match=r"^learner.shard = 'machine': set LOCAL_WORLD_SIZE"):
        place.find(run(4, shard="machine"), four)
    with pytest.raises(ConfigError, match=r"^LOCAL_WORLD_SIZE = 3: .*; set learner.shard = 'all'"):
        machine("machine", "3")
