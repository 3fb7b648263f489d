"""The largest micro-batch that a run's settings can give, laid out by the learner's own rules.

Completions differ in length, so some micro-batch fills its budget, unless a step of this rank has
less, or one completion alone has more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sppo.config import RunConfig
from sppo.families import Rows
from sppo.learner import batching
from sppo.learner.batching import MicroBatch, Part
from sppo.types import Completion, Group


class Layout(NamedTuple):
    """What decides it; lengths in tokens."""

    prompt: int
    completions: int
    longest: int
    groups: int
    """Of one optimizer step, of one rank."""
    budget: int
    share_prompt: bool

    @classmethod
    def of(cls, config: RunConfig, *, shares: bool) -> Layout:
        """By a run's settings; `shares`: whether the model's family may share a prompt in a row."""
        learner = config.learner
        per_step = -(-learner.most_groups // learner.mini_batches)
        return cls(
            prompt=config.task.max_prompt_tokens, completions=config.sampling.completions,
            longest=config.sampling.max_tokens, groups=-(-per_step // learner.ranks),
            budget=learner.micro_batch_tokens, share_prompt=learner.share_prompt and shares,
        )  # fmt: skip

    @property
    def alone(self) -> int:
        """Tokens of one completion with its prompt: the least that a micro-batch can be."""
        return self.prompt + self.longest - 1

    @property
    def tokens(self) -> int:
        """Of the largest micro-batch."""
        fed = self.completions * (self.longest - 1)
        prompts = 1 if self.share_prompt else self.completions
        return max(self.alone, min(self.budget, self.groups * (prompts * self.prompt + fed)))

    @property
    def plain(self) -> Layout:
        """As many tokens in one row, nearly all of them predicted: what a GPU, whose attention
        keeps nothing for pairs of tokens, takes for any layout.
        """
        return Layout(
            prompt=1, completions=1, longest=self.tokens, groups=1, budget=self.tokens,
            share_prompt=True,
        )  # fmt: skip

    def largest(self) -> MicroBatch:
        """One row that shares its prompt; or rows of one completion each, as many as fit."""
        if not self.share_prompt:
            rows = self.tokens // self.alone
            return self._laid_out([self.longest] * rows)
        each, left = max(self.longest - 1, 1), self.tokens - self.prompt
        rest = [left % each + 1] if left % each else []
        return self._laid_out([each + 1] * (left // each) + rest)

    def _laid_out(self, lengths: list[int]) -> MicroBatch:
        group = Group(
            gid="plan", uid="plan", stream="train", prompt_ids=np.zeros(self.prompt, np.int32),
            completions=tuple(map(_completion, lengths)), generator="",
            rewards=np.zeros(len(lengths), np.float32),
        )  # fmt: skip
        rows: Rows = "packed" if self.share_prompt else "completion"
        return batching.collate([group], [Part(0, 0, len(lengths))], rows=rows, device="cpu")


def _completion(length: int) -> Completion:
    return Completion(
        token_ids=np.zeros(length, np.int32), behavior_logprobs=np.zeros(length, np.float32),
        spans=(), finish_reason="stop",
    )  # fmt: skip
