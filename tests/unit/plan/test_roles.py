"""What the roles beside the learner's ranks take."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.config import RunConfig
from sppo.plan import gpus, roles
from sppo.plan.gpus import GIB

H100 = gpus.named("h100")


def run(*given: str) -> RunConfig:
    return config.load("math-7b", list(given), environment=False)


def test_an_engines_cache_is_what_its_share_leaves() -> None:
    one = roles.generator(run(), H100)
    assert one.weights == 2 * 7_615_616_512
    assert one.cache == int(0.9 * H100.nbytes) - one.weights - roles.ENGINE
    assert one.cached_tokens == one.cache // (2 * 28_672)
    assert (one.longest, one.wanted_tokens) == (1536, 512 * 1536)


def test_tensor_parallel_engines_share_weights_and_heads() -> None:
    one, eight = (roles.generator(run(f"generator.tensor_parallel={n}"), H100) for n in (1, 8))
    assert eight.weights == one.weights // 8
    # four heads of keys and values: no more than four parts
    assert eight.cached_tokens == eight.cache // (2 * 28_672 // 4)


def test_each_copy_of_an_engine_has_its_own_cache() -> None:
    one, two = (
        roles.generator(run(f"generator.vllm.data_parallel_size={n}"), H100) for n in (1, 2)
    )
    assert two.cached_tokens == 2 * one.cached_tokens


def test_on_a_cpu_the_cache_is_a_setting() -> None:
    small = config.load("quickstart", ["compute=float32"], environment=False)
    found = roles.generator(small, None)
    assert (found.weights, found.cache) == (4 * 134_515_008, GIB // 2)


def test_the_brokers_share_is_that_of_the_longest_groups() -> None:
    found = roles.broker(run("learner.lookahead_steps=1"))
    assert found.group == 8 * 512 + 4 * 1024
    assert found.in_flight == 2 * 1024 * found.group
    assert found.step == 2 * 256 * found.group


def test_a_batch_that_is_filled_up_has_more_tickets_out() -> None:
    plain = roles.broker(config.load("quickstart", environment=False))
    filled = roles.broker(config.load("quickstart", ["learner.refill=3"], environment=False))
    assert (plain.tickets, filled.tickets) == (8 + 8, 8 + 24)
    assert filled.in_flight == 32 * filled.group == 2 * plain.in_flight
    assert filled.step == 3 * plain.step


def test_a_sync_takes_its_bytes_by_the_bandwidth() -> None:
    found = roles.sync(run(), gpu=True, bandwidth=1e9)
    assert found.seconds == pytest.approx(15.23, abs=0.01)
    assert found.deadline == 60


def test_host_memory_holds_what_does_not_lie_on_a_device() -> None:
    plain = roles.host(run(), gpu=True)
    assert plain == {
        "copy for checkpoints": 12 * 7_615_616_512,
        "staged weights": 2 * 7_615_616_512,
    }
    other = run("learner.snapshot=host", "objective.kl_coef=0.1", "optimizer.offload=true")
    assert set(roles.host(other, gpu=True)) - set(plain) == {"snapshots", "moments"}
    turns = run("learner.ranks=1", "launch.share_gpu=true", "launch.take_turns=true")
    assert roles.host(turns, gpu=True)["weights of engines that sleep"] == 2 * 7_615_616_512
    adapted = roles.host(run("adapter.rank=8"), gpu=True)
    assert adapted["staged weights"] == plain["staged weights"]
    assert sum(adapted.values()) < sum(plain.values()) / 4
