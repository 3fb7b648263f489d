"""What crosses the network between machines, and who shares a copy of the model."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.plan import fit, gpus, learner, machines, roles, table
from sppo.plan.machines import Between

P, ROOT = 7_615_616_512, 2 * 152_064 * 3584 + 3584
"""Of Qwen2.5-7B, and its root's part."""


def run(*given: str) -> config.RunConfig:
    return config.load("cluster", list(given), environment=False)


def between(*given: str) -> Between:
    asked = run(*given)
    return machines.between(asked, learner.model(asked)[1], gpu=True)


def test_on_one_machine_nothing_crosses_and_both_are_the_same() -> None:
    for shard in ("all", "machine"):
        found = between(f"learner.shard={shard}")
        assert (found.machines, found.nbytes) == (1, 0)
    planned = [learner.rank(run(f"learner.shard={s}"), gpu=True) for s in ("all", "machine")]
    assert planned[0] == planned[1]


def test_shards_over_two_machines_cross_in_each_micro_batch_and_copies_once_a_step() -> None:
    two = "learner.ranks=16"
    assert between(two, "learner.shard=all") == Between(
        machines=2, nbytes=(2 * (2 * P - ROOT) + 4 * P) * 15 // 16, of="a micro-batch"
    )
    assert between(two, "learner.shard=machine") == Between(machines=2, nbytes=4 * P, of="a step")


def test_a_rank_of_a_machine_with_a_copy_holds_what_it_would_alone() -> None:
    planned = learner.rank(run("learner.ranks=16", "learner.shard=machine"), gpu=True)
    assert planned.stands == learner.rank(run("learner.ranks=8"), gpu=True).stands
    shared = learner.rank(run("learner.ranks=16", "learner.shard=all"), gpu=True)
    assert shared.stands["moments"] == pytest.approx(planned.stands["moments"] / 2, rel=1e-3)


def test_the_first_machine_writes_all_of_a_copy_or_its_own_part() -> None:
    copied = [
        roles.host(run("learner.ranks=16", f"learner.shard={s}"), gpu=True)["copy for checkpoints"]
        for s in ("all", "machine")
    ]
    assert copied == [6 * P, 12 * P]


def test_the_environment_says_how_many_ranks_a_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    asked = run("learner.ranks=16", "learner.shard=machine")
    assert (machines.count(asked), machines.sharing(asked)) == (4, 4)
    text = "\n".join(table.lines(table.made(asked, "h100", 1e9)))
    assert "rank 0 of 16 (4 share a copy of the model): " in text
    assert "traffic between machines " in text
    assert "in and out of each of 4, in a step" in text


def test_one_copy_over_all_machines_is_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    asked = run("learner.ranks=8", "learner.shard=machine")
    words = fit.learner_on(asked, gpus.named("40GB"))
    assert words.startswith("learner.shard = 'machine': ")
    assert "; set learner.shard = 'all'" in words
