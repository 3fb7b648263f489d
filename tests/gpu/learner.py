"""The learner's end of a weight sync on a GPU, beside an engine of this process."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import torch

from sppo import compute
from sppo.config import RunConfig
from sppo.learner.adapters import Adapters
from sppo.learner.model import Logprobs, Policy
from sppo.learner.trainer import Trainer
from sppo.types import Completion, Group, Version
from sppo.weights.gloo import GlooSender
from sppo.weights.nccl import NcclSender


class Learner:
    """A policy on one GPU, whose weights can be moved and sent."""

    def __init__(self, run: RunConfig, path: str, sender: GlooSender | NcclSender) -> None:
        self.policy = Policy(
            path, device="cuda", logprobs=Logprobs(temperature=run.sampling.temperature),
            compute=compute.dtype(run), adapted=Adapters.of(run),
        )  # fmt: skip
        self._trainer = Trainer(run, self.policy, None)  # type: ignore[arg-type]
        self._sender = sender
        self._joined = False

    def disturb(self, seed: int) -> None:
        """Move every weight, as an optimizer step would."""
        torch.manual_seed(seed)
        for parameter in self.policy.master.values():
            size = parameter.data.abs().mean()
            parameter.data.add_(torch.randn_like(parameter) * 0.02 * size)
        self.policy.refresh()

    def gap(
        self, prompts: list[list[int]], made: list[list[Completion]], version: Version
    ) -> float:
        """Mean |engine - learner| log-prob, in nats a token."""
        groups = [
            Group(
                gid="g", uid=f"train-{i:09}", stream="train",
                prompt_ids=np.asarray(prompt, np.int32), completions=tuple(completions),
                rewards=np.zeros(len(completions), np.float32), generator="g",
            )
            for i, (prompt, completions) in enumerate(zip(prompts, made, strict=True))
        ]  # fmt: skip
        return float(self._trainer.mismatch(groups, version).mean)

    async def publish(
        self, engine: Any, version: Version, *, buckets: int | None = None, timeout_s: float = 60
    ) -> dict[str, float]:
        """One sync; seconds of its parts. With `buckets` only so many are sent, and nobody says so:
        what the engine raises is raised.
        """
        started = time.monotonic()
        update = self._sender.stage(self.policy.weights())
        staged = time.monotonic()
        meet, self._joined = not self._joined, False
        join = self._sender.open(1 + engine.world_size, timeout_s) if meet else {}
        if buckets is not None:
            self._sender._staged = self._sender._staged[:buckets]
        sending = threading.Thread(target=self._sender.transfer(meet=meet), daemon=True)
        sending.start()
        if meet:
            await engine.join_group(join | {"rank_offset": 1})
        met = time.monotonic()
        await engine.load_weights(update, version)
        sending.join(60)
        assert not sending.is_alive()
        self._joined = True
        done = time.monotonic()
        return {"stage": staged - started, "meet": met - staged, "send and load": done - met}

    def close(self) -> None:
        """Leave the group, and the GPU."""
        self._sender.close()
        del self.policy, self._trainer
        torch.cuda.empty_cache()
