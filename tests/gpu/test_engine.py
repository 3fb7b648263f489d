"""vLLM on a GPU, and weight syncs into it over each transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from sppo.errors import TransferAborted, WeightsMixed
from sppo.types import Completion, SamplingParams, Version
from tests.gpu.conftest import Figures

LONG = SamplingParams(completions=8, temperature=1.0, max_tokens=128, seed=0)
GREEDY = replace(LONG, completions=1, temperature=0.0, max_tokens=16)
QUESTIONS = [f"Calculate {a} + {a + 5}. Explain each step." for a in range(3, 83, 10)]
PARITY = 0.1
SETTINGS = ["learner.device=cuda", "compute=bfloat16", "generator.max_groups=8",
            "generator.gpu_memory_utilization=0.4", "sampling.max_tokens=128",
            "sampling.completions=8", "sampling.temperature=1.0"]  # fmt: skip


def versions(count: int) -> list[Version]:
    return [Version(epoch="gpu", n=n) for n in range(count)]


class Bench:
    """The default model in an engine on GPU 0, and its learner in this process."""

    def __init__(self, sender: Any, *, transport: str) -> None:
        from sppo import config, models
        from sppo.generators.vllm_engine import VllmEngine
        from tests.gpu.learner import Learner

        run = config.load("quickstart", SETTINGS)
        path = models.resolve(run.model)
        tokenizer = models.load_tokenizer(path)
        self.prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": q}], add_generation_prompt=True, return_dict=False
            )
            for q in QUESTIONS
        ]
        self.engine = VllmEngine(run, path, transport=transport, on_cpu=False)
        self.learner = Learner(run, path, sender)

    async def sampled(self, sampling: SamplingParams, label: str) -> list[list[Completion]]:
        return await asyncio.gather(
            *(self.engine.sample(p, sampling, f"{label}{i}") for i, p in enumerate(self.prompts))
        )

    async def greedy(self, label: str) -> list[list[int]]:
        return [c.token_ids.tolist() for (c,) in await self.sampled(GREEDY, label)]

    def run(self, work: Callable[[], Awaitable[None]], figures: Figures) -> None:
        async def whole() -> None:
            started = time.monotonic()
            await self.engine.start()
            figures.add("engine start", time.monotonic() - started, "s")
            try:
                await work()
            finally:
                await self.engine.close()

        try:
            asyncio.run(whole())
        finally:
            self.learner.close()


@pytest.mark.gpus(1)
@pytest.mark.timeout(300)
def test_vllm_agrees_with_the_learner_before_and_after_a_sync_over_gloo(figures: Figures) -> None:
    """Start vLLM beside a learner on GPU 0, sample, compare log-probs, pause it in flight, sync
    over gloo, go on, and compare again.
    """
    from sppo.weights.gloo import GlooSender

    bench = Bench(GlooSender("127.0.0.1"), transport="gloo")
    base, moved = versions(2)

    async def work() -> None:
        await bench.learner.publish(bench.engine, base)
        await bench.sampled(LONG, "warm")
        started = time.monotonic()
        made = await bench.sampled(LONG, "a")
        seconds = time.monotonic() - started
        tokens = sum(len(c.token_ids) for group in made for c in group)
        figures.add("sampled tokens", tokens / seconds, "1/s")
        gap = bench.learner.gap(bench.prompts, made, base)
        figures.add("engine against learner", gap, "nats")
        assert gap < PARITY
        bench.learner.disturb(1)
        running = asyncio.create_task(bench.sampled(replace(LONG, max_tokens=128), "r"))
        await asyncio.sleep(0.2)
        await bench.engine.pause()
        for part, took in (await bench.learner.publish(bench.engine, moved)).items():
            figures.add(f"sync over gloo: {part}", took, "s")
        await bench.engine.resume()
        spans = [[s.version.n for s in c.spans] for group in await running for c in group]
        assert [0, 1] in spans
        gap = bench.learner.gap(bench.prompts, await bench.sampled(LONG, "b"), moved)
        figures.add("engine against learner, synced", gap, "nats")
        assert gap < PARITY
        figures.add("learner's peak", torch.cuda.max_memory_allocated() / 2**30, "GiB")

    bench.run(work, figures)


@pytest.mark.gpus(2)
@pytest.mark.timeout(300)
def test_nccl_from_gpu_1_to_vllm_on_gpu_0_and_transfers_that_break_off(figures: Figures) -> None:
    """Sync from a learner on GPU 1 to vLLM on GPU 0 over NCCL; then break transfers off, before and
    after a part was loaded, and see the same engine take the next whole one.
    """
    from sppo.weights.nccl import NcclSender

    torch.cuda.set_device(1)
    try:
        bench = Bench(NcclSender("127.0.0.1", "cuda", bucket_bytes=16 << 20), transport="nccl")
        syncs_and_broken_ones(bench, "over NCCL", figures)
    finally:
        torch.cuda.set_device(0)


@pytest.mark.gpus(1)
@pytest.mark.timeout(300)
def test_cuda_ipc_to_vllm_on_the_same_gpu_and_transfers_that_break_off(
    figures: Figures, caplog: pytest.LogCaptureFixture
) -> None:
    """Sync to vLLM through memory of the one GPU that it shares with the learner; then break
    transfers off, before and after a part was loaded, and see the same engine take the next.
    """
    from sppo.weights.shared import SharedSender

    bench = Bench(SharedSender("127.0.0.1", "cuda", bucket_bytes=16 << 20), transport="shared")
    syncs_and_broken_ones(bench, "by CUDA IPC", figures)
    assert "weights go over gloo" not in caplog.text


def syncs_and_broken_ones(bench: Bench, way: str, figures: Figures) -> None:
    base, moved = versions(2)

    async def work() -> None:
        learner, engine = bench.learner, bench.engine
        await learner.publish(engine, base)
        for part, took in (await learner.publish(engine, base)).items():
            figures.add(f"sync {way}: {part}", took, "s")
        gap = learner.gap(bench.prompts, await bench.sampled(LONG, "a"), base)
        figures.add("engine against learner", gap, "nats")
        assert gap < PARITY
        before = await bench.greedy("b")
        learner.disturb(1)
        await engine.pause()
        with pytest.raises(TransferAborted) as caught:
            await learner.publish(engine, moved, buckets=0, timeout_s=5)
        assert not isinstance(caught.value, WeightsMixed)
        await engine.resume()
        assert await bench.greedy("c") == before
        await engine.pause()
        with pytest.raises(WeightsMixed):
            await learner.publish(engine, moved, buckets=3, timeout_s=5)
        started = time.monotonic()
        await learner.publish(engine, moved)
        figures.add("a new group, and a whole sync", time.monotonic() - started, "s")
        await engine.resume()
        gap = learner.gap(bench.prompts, await bench.sampled(LONG, "d"), moved)
        figures.add("engine against learner, synced", gap, "nats")
        assert gap < PARITY

    bench.run(work, figures)
