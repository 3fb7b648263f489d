"""What a generator asks of an inference engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sppo.config import RunConfig
from sppo.types import Completion, SamplingParams, Version
from sppo.weights.protocol import WeightTarget


class Engine(WeightTarget, Protocol):
    """Samples completions while its weights may be replaced.

    engine = ...; await engine.start()
    completions = await engine.sample(prompt_ids, sampling, "some-id")    # many at a time
    await engine.pause(); await engine.load_weights(update, version); await engine.resume()
    await engine.close()
    """

    async def start(self) -> None:
        """Load the base model and be ready to sample."""

    async def sample(
        self, prompt_ids: Sequence[int], sampling: SamplingParams, request_id: str
    ) -> list[Completion]:
        """K completions with behaviour log-probs, version spans and text."""

    async def label(self, version: Version) -> None:
        """The weights that it was started with are of this version: for sampling without a
        learner.
        """

    async def ping(self) -> None:
        """Returns while the engine can step; one that has hung never answers."""

    async def close(self) -> None:
        """End the engine and its processes."""


def make(config: RunConfig, path: str, *, spread: bool = False) -> Any:
    """The engine that the configuration names for the model in this folder, on this process's
    device; `learner.device` and `weights.transport` are decided (`compute.placed`). `spread`: on
    several machines of a Ray cluster, in the placement group of this process.
    """
    on_cpu = config.learner.device == "cpu"
    transport = config.weights.transport
    if config.generator.engine == "transformers":
        from sppo.generators.transformers_engine import TransformersEngine

        return TransformersEngine(config, path, transport=transport, on_cpu=on_cpu)
    from sppo.generators.vllm_engine import VllmEngine

    return VllmEngine(config, path, transport=transport, on_cpu=on_cpu, spread=spread)
