"""A deterministic engine for tests: no model, real weight sync over gloo.

Tokens follow from the prompt, the ticket's seed and the completion's number. The text is the
decimal sum of the tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sppo.types import Completion, SamplingParams, Version, VersionSpan
from sppo.weights.gloo import GlooReceiver
from sppo.weights.protocol import unheard

VOCABULARY = 64


class FakeEngine:
    """See `sppo.generators.engine.Engine`. `token_s` is the time one token takes."""

    world_size = 1

    def __init__(self, *, token_s: float = 0.0, receiver: GlooReceiver | None = None) -> None:
        self._token_s = token_s
        self._running = asyncio.Event()
        self._receiver = receiver or GlooReceiver()
        self.version = Version(epoch="none", n=0)
        self.naps = 0
        self._asleep = False
        self.weights: dict[str, Tensor] = {}

    async def start(self) -> None:
        """Ready at once."""
        self._running.set()

    async def sample(
        self, prompt_ids: Sequence[int], sampling: SamplingParams, request_id: str
    ) -> list[Completion]:
        """K completions of 1 to `max_tokens` tokens."""
        completions = [self._complete(prompt_ids, sampling, k) for k in range(sampling.completions)]
        return list(await asyncio.gather(*completions))

    async def _complete(
        self, prompt_ids: Sequence[int], sampling: SamplingParams, k: int
    ) -> Completion:
        rng = np.random.default_rng([sampling.seed, k, *prompt_ids])
        length = int(rng.integers(1, sampling.max_tokens + 1))
        tokens = rng.integers(0, VOCABULARY, length).astype(np.int32)
        versions = []
        for _ in range(length):
            await self._running.wait()
            assert not self._asleep, "nothing is sampled by an engine that sleeps"
            versions.append(self.version)
            await asyncio.sleep(self._token_s)
        return Completion(
            token_ids=tokens,
            behavior_logprobs=np.full(length, -np.log(VOCABULARY), np.float32),
            spans=_spans(versions),
            finish_reason="length" if length == sampling.max_tokens else "stop",
            text=str(int(tokens.sum())),
        )

    async def label(self, version: Version) -> None:
        """Without a transfer."""
        self.version = version

    async def ping(self) -> None:
        """Always there."""

    async def sleep(self) -> None:
        """Be of no use."""
        self.naps += 1
        self._asleep = True

    async def wake(self) -> None:
        """Be of use again."""
        self._asleep = False

    async def pause(self) -> None:
        """Hold every completion before its next token."""
        self._running.clear()

    async def resume(self) -> None:
        """Go on."""
        self._running.set()

    async def join_group(self, join: dict[str, Any]) -> None:
        """Join over real sockets."""
        arguments = {k: v for k, v in join.items() if k != "rank_offset"}
        await asyncio.to_thread(self._receiver.join, rank=join["rank_offset"], **arguments)

    async def load_weights(
        self, update: dict[str, Any], version: Version, moved: Callable[[], None] = unheard
    ) -> None:
        """Receive real bytes and keep them."""

        def receive() -> dict[str, Tensor]:
            return {name: w.clone() for name, w in self._receiver.receive(**update, moved=moved)}

        assert not self._asleep, "an engine that sleeps has no memory for weights"
        self.weights = await asyncio.to_thread(receive)
        self.version = version

    async def close(self) -> None:
        """Leave the group."""
        self._receiver.close()


def _spans(versions: Sequence[Version]) -> tuple[VersionSpan, ...]:
    spans: list[VersionSpan] = []
    for i, version in enumerate(versions):
        if spans and spans[-1].version == version:
            spans[-1] = VersionSpan(version=version, start=spans[-1].start, end=i + 1)
        else:
            spans.append(VersionSpan(version=version, start=i, end=i + 1))
    return tuple(spans)
