"""What vLLM is started with, on GPUs and on a CPU; that it works is seen in tests/integration."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from sppo import compute, config
from sppo.generators import vllm_engine
from sppo.generators.vllm_engine import VllmEngine, engine_arguments, set_environment


def arguments(*overrides: str, on_cpu: bool) -> dict[str, Any]:
    run = config.load("quickstart", list(overrides), environment=False)
    return engine_arguments(compute.decided(run, cuda=not on_cpu), "/m", on_cpu=on_cpu)


def test_graphs_are_captured_on_gpus_and_a_table_has_the_last_word() -> None:
    assert arguments(on_cpu=True)["enforce_eager"]
    assert not arguments(on_cpu=False)["enforce_eager"]
    eager = arguments("generator.vllm.enforce_eager=true", on_cpu=False)
    assert eager["enforce_eager"]
    assert eager["gpu_memory_utilization"] == 0.9


@pytest.mark.parametrize(
    ("groups", "on_cpu", "tokens"),
    [(32, True, None), (512, True, 4096), (32, False, 8192), (4096, False, 32768)],
)
def test_a_step_holds_a_token_of_every_completion(
    groups: int, on_cpu: bool, tokens: int | None
) -> None:
    found = arguments(f"generator.max_groups={groups}", on_cpu=on_cpu)
    assert found["max_num_seqs"] == 8 * groups
    assert found.get("max_num_batched_tokens") == tokens


def test_an_engine_of_several_processes_counts_all_of_them() -> None:
    given = ("generator.tensor_parallel=2", "generator.vllm.pipeline_parallel_size=2")
    found = arguments(*given, on_cpu=False)
    assert (found["tensor_parallel_size"], found["pipeline_parallel_size"]) == (2, 2)
    assert found["distributed_executor_backend"] == "mp"
    run = config.load("quickstart", list(given), environment=False)
    assert VllmEngine(run, "/m", transport="nccl", on_cpu=False).world_size == 4


def test_copies_on_one_machine_are_processes_that_each_take_their_share() -> None:
    two = ("generator.vllm.data_parallel_size=2", "generator.vllm.enable_expert_parallel=true")
    found = arguments(*two, on_cpu=False)
    assert (found["data_parallel_size"], found["enable_expert_parallel"]) == (2, True)
    assert found["distributed_executor_backend"] == "mp"  # not Ray, in a placement group
    assert arguments(*two, on_cpu=True)["distributed_executor_backend"].endswith("UniProcExecutor")
    both = arguments(*two, "generator.tensor_parallel=2", on_cpu=True)
    assert both["distributed_executor_backend"] == "mp"
    run = config.load("quickstart", list(two), environment=False)
    assert VllmEngine(run, "/m", transport="gloo", on_cpu=True).world_size == 2


def test_an_engine_on_several_machines_is_met_at_its_own_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {})
    run = config.load(
        "quickstart", ["generator.host=10.0.0.3", "weights.trusted_network=true"],
        environment=False,
    )  # fmt: skip
    set_environment(run, on_cpu=False, spread=True)
    assert os.environ["VLLM_HOST_IP"] == "10.0.0.3"


class Dying:
    """vLLM's client of an engine one of whose processes died while it was asked."""

    errored, dead_error = True, RuntimeError("EngineCore encountered an issue")

    async def get_weight_version(self) -> str:
        await asyncio.Event().wait()
        return ""


def test_an_engine_that_dies_while_it_is_asked_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_engine, "ALIVE_S", 0.01)
    run = config.load("quickstart", environment=False)
    engine = VllmEngine(run, "/m", transport="gloo", on_cpu=True)
    engine._engine = Dying()
    with pytest.raises(RuntimeError, match="EngineCore encountered an issue"):
        asyncio.run(asyncio.wait_for(engine.ping(), 5))


def test_on_gpus_vllm_spawns_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"VLLM_WORKER_MULTIPROC_METHOD": "fork"})
    run = config.load("quickstart", environment=False)
    set_environment(run, on_cpu=False)
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert os.environ["VLLM_HOST_IP"] == "127.0.0.1"
    monkeypatch.setattr(os, "environ", {})
    set_environment(run, on_cpu=True)
    assert "VLLM_WORKER_MULTIPROC_METHOD" not in os.environ


def test_an_engine_that_takes_turns_can_sleep_where_vllm_has_it() -> None:
    run = config.load("one-gpu", ["launch.take_turns=true"], environment=False)
    asked = [
        engine_arguments(compute.decided(run, cuda=not on_cpu), "/m", on_cpu=on_cpu)
        for on_cpu in (False, True)
    ]
    assert asked[0]["enable_sleep_mode"]
    assert "enable_sleep_mode" not in asked[1]


def test_the_cache_of_a_shared_gpu_is_a_number_of_bytes() -> None:
    run = compute.decided(config.load("one-gpu", environment=False), cuda=True)
    found = engine_arguments(run, "/m", on_cpu=False)
    assert found["kv_cache_memory_bytes"] == 6 << 30
    assert found["gpu_memory_utilization"] < 0.1  # vLLM asks for so much before it looks
    assert "block_size" not in found
