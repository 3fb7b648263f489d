"""TRL's side of `sppo-cli bench learner`: GRPOTrainer's optimizer step on given groups. Nothing is
sampled; everything else is the trainer's own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppo import models
from sppo.bench import trl_peer
from sppo.config import RunConfig
from sppo.types import Group


def take(config: RunConfig, groups: Sequence[Group], count: int, folder: Path) -> list[float]:
    """Seconds of each of `count` optimizer steps."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    batch, seconds = batch_of(groups), []

    class Given(GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Tensor]:
            return dict(batch)

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    trainer = Given(
        model=models.resolve(config.model),
        args=GRPOConfig(**trl_peer.arguments(config, count, folder)),
        train_dataset=Dataset.from_list([{"prompt": "0"}] * (count * len(groups))),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
    )
    trainer.add_callback(Watch())
    trainer.train()
    return seconds


def batch_of(groups: Sequence[Group]) -> dict[str, Tensor]:
    """As GRPOTrainer lays out what it has sampled: prompts padded on the left, completions on the
    right, advantages within each group.
    """
    rows = [(g.prompt_ids, c.token_ids) for g in groups for c in g.completions]
    prompt, answer = (max(len(row[i]) for row in rows) for i in (0, 1))
    shape = {"prompt": (len(rows), prompt), "completion": (len(rows), answer)}
    made = {
        f"{part}_{kind}": torch.zeros(size, dtype=torch.int64)
        for part, size in shape.items()
        for kind in ("ids", "mask")
    }
    for i, (asked, answered) in enumerate(rows):
        made["prompt_ids"][i, prompt - len(asked) :] = torch.from_numpy(asked)
        made["prompt_mask"][i, prompt - len(asked) :] = 1
        made["completion_ids"][i, : len(answered)] = torch.from_numpy(answered)
        made["completion_mask"][i, : len(answered)] = 1
    rewards = [torch.from_numpy(g.rewards) for g in groups if g.rewards is not None]
    advantages = [(r - r.mean()) / (r.std() + 1e-4) for r in rewards]
    return made | {
        "advantages": torch.cat(advantages),
        "num_items_in_batch": made["completion_mask"].sum(),
    }
