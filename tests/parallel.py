"""A small model in an engine of several ranks: sampled from, paused in flight, given new weights,
sampled from again. On CPUs by tests/integration, on GPUs by tests/gpu.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import torch

from sppo.config import RunConfig
from sppo.types import Completion, SamplingParams, Version
from sppo.weights.gloo import GlooSender
from tests import families
from tests.makers import run_config

LONG = SamplingParams(completions=3, temperature=1.0, max_tokens=100, seed=0)
REQUESTS = 6
BASE, SYNCED = Version(epoch="e", n=0), Version(epoch="e", n=1)


def settings(*, compute: str = "float32", **generator: Any) -> RunConfig:
    """Of such an engine, on few threads and with little cache."""
    own = {"max_groups": REQUESTS, "threads": 2, "kv_cache_gib": 0.1}
    return run_config(
        task={"max_prompt_tokens": 40}, sampling={"max_tokens": 100, "completions": 3},
        generator=own | generator, compute=compute,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of it."""

    versions: list[list[int]]
    """By which each completion that was in flight was sampled."""
    after: set[int]
    """The versions of those that came after the sync."""
    gaps: dict[str, tuple[float, float]]
    """Between the log-probs of an engine and those of its weights, before and after the sync, and
    of what is sampled after it from the weights before: mean and largest, nats a token.
    """


async def life(engine: Any, path: str) -> Seen:
    """Of an engine that was started, with the model in this folder."""
    learner, moved = Learner(path), families.load(path)
    prompt = families.group().prompt_ids.tolist()

    async def sample(label: str) -> list[Completion]:
        asked = (engine.sample(prompt, LONG, f"{label}{i}") for i in range(REQUESTS))
        return [made for answer in await asyncio.gather(*asked) for made in answer]

    await learner.publish(engine, BASE)
    first = await sample("a")
    running = [asyncio.create_task(engine.sample(prompt, LONG, f"b{i}")) for i in range(REQUESTS)]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    await engine.pause()
    learner.move()
    await learner.publish(engine, SYNCED)
    await engine.resume()
    across = [made for answer in await asyncio.gather(*running) for made in answer]
    later = await sample("c")
    await engine.ping()
    base = families.load(path)
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            weight.copy_(learner.policy.master[name])
    learner.close()
    return Seen(
        versions=[[span.version.n for span in made.spans] for made in across],
        after={span.version.n for made in later for span in made.spans},
        gaps={
            "before": gap(base, prompt, first), "after": gap(moved, prompt, later),
            "stale": gap(base, prompt, later),
        },
    )  # fmt: skip


def gap(model: Any, prompt: list[int], made: list[Completion]) -> tuple[float, float]:
    """See `Seen.gaps`."""
    found = torch.cat([families.sampled_gaps(model, prompt, one) for one in made])
    return float(found.mean()), float(found.max())


class Learner:
    """Its end of a sync over gloo, in this process and on its CPU."""

    def __init__(self, path: str) -> None:
        self.policy = families.learner(path)
        self._sender = GlooSender("127.0.0.1")
        self._joined = False

    def move(self) -> None:
        """Every weight, and far."""
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in self.policy.master.values():
                weight.mul_(1 + 0.3 * torch.rand_like(weight))

    async def publish(self, engine: Any, version: Version) -> None:
        """To every rank of the engine."""
        update = self._sender.stage(self.policy.weights())
        join = {} if self._joined else self._sender.open(1 + engine.world_size, 60)
        sending = threading.Thread(target=self._sender.transfer(meet=not self._joined))
        sending.start()
        if join:
            await engine.join_group(join | {"rank_offset": 1})
        await engine.load_weights(update, version)
        sending.join()
        self._joined = True

    def close(self) -> None:
        """Leave the group."""
        self._sender.close()
