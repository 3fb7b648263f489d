"""What a generator asks of an inference engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sppo.types import Completion, SamplingParams
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

    async def ping(self) -> None:
        """Returns while the engine can step; one that has hung never answers."""

    async def close(self) -> None:
        """End the engine and its processes."""
