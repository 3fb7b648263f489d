"""What vLLM does by itself on GPUs alone, forced on a CPU: asynchronous scheduling, through a
weight sync under way. (Model runner v2 wants a Triton that compiles for CPUs: docs/gpu.md.)
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from sppo.generators.vllm_engine import VllmEngine
from sppo.types import Completion, SamplingParams, Version
from tests import families as tiny
from tests.makers import run_config

SYNCED = Version(epoch="e", n=1)
LONG = SamplingParams(completions=3, temperature=1.0, max_tokens=200, seed=0)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's CPU platform turns asynchronous scheduling off; here it is turned on after that."""
    from vllm.platforms.cpu import CpuPlatform

    checked = CpuPlatform.check_and_update_config

    def on(vllm_config: Any) -> None:
        checked(vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    monkeypatch.setattr(CpuPlatform, "check_and_update_config", staticmethod(on))


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("forced")
def test_completions_in_flight_go_on_under_new_weights(tmp_path: Path) -> None:
    # Given an engine that samples with the base model
    path = tiny.save("llama", tmp_path)
    run = run_config(
        task={"max_prompt_tokens": 40}, sampling={"max_tokens": 200, "completions": 3},
        generator={"max_groups": 4, "threads": 1}, compute="float32",
    )  # fmt: skip
    policy, base, moved = tiny.learner(path), tiny.load(path), tiny.load(path)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
    prompt = tiny.group().prompt_ids.tolist()

    async def life() -> tuple[list[Completion], list[Completion], bool]:
        engine = VllmEngine(run, path, transport="gloo", on_cpu=True)
        await engine.start()
        try:
            on = engine._engine.vllm_config.scheduler_config.async_scheduling
            await tiny.publish(policy, engine)
            # When weights come while it samples, and it is paused for them
            running = [asyncio.create_task(engine.sample(prompt, LONG, f"a{i}")) for i in range(8)]
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await engine.pause()
            with torch.no_grad():
                for name, parameter in moved.named_parameters():
                    policy.master[name].copy_(parameter)
            await tiny.publish(policy, engine, SYNCED)
            await engine.resume()
            across = [made for answer in await asyncio.gather(*running) for made in answer]
            return across, await engine.sample(prompt, LONG, "b"), on
        finally:
            await engine.close()

    across, after, on = asyncio.run(life())
    assert on
    # Then log-probs are those of the weights by whose version they are labelled
    assert [[s.version.n for s in c.spans] for c in after] == [[1]] * 3
    assert [0, 1] in [[s.version.n for s in c.spans] for c in across]
    for made in after:
        assert tiny.sampled_gap(moved, prompt, made) < tiny.ENGINE_NATS
    for made in across:  # what follows stands on cached keys and values of both weights
        first = made.spans[0]
        model = moved if first.version.n else base  # one may begin after the pause
        assert tiny.sampled_gap(model, prompt, made, 0, first.end) < tiny.ENGINE_NATS
