"""Scorers that hold a model, in processes of their own as a run has them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.scorers import tiny_models
from sppo.scorer import comparisons
from sppo.scorer.base import InlineScorer
from sppo.types import ScoreRequest, Scores

GROUPS = [
    ScoreRequest(
        uid=f"u{g}", question="what is two + three ?", data={"answer": "it is five"},
        completions=["it is five", "i think it is six", "bad", "a long answer", "four ."][:k],
    )
    for g, k in enumerate((5, 4, 3, 1))
]  # fmt: skip


def scored(name: str, folder: Path, kind: str, **options: Any) -> list[Scores]:
    """Groups that are asked about at the same time."""
    folder.mkdir()
    torch.manual_seed(0)
    tiny_models.MODELS[kind](folder)

    async def all_of_them() -> list[Scores]:
        scorer = InlineScorer(name, options={"model": str(folder), **options})
        try:
            return list(await asyncio.gather(*(scorer.score(group) for group in GROUPS)))
        finally:
            await scorer.close()

    return asyncio.run(all_of_them())


def test_a_reward_model_tells_completions_apart(tmp_path: Path) -> None:
    found = scored("reward-model", tmp_path / "rm", "reward-model")
    for group, scores in zip(GROUPS, found, strict=True):
        assert scores.rewards is not None
        assert len(set(scores.rewards.tolist())) == len(group.completions)
        assert scores.details is not None
        assert scores.details[0]["tokens"] > 0


def test_a_pairwise_model_leaves_out_what_it_is_told_to(tmp_path: Path) -> None:
    found = scored("pairwise-model", tmp_path / "pairrm", "pairrm", compare="circular")
    for group, scores in zip(GROUPS[:3], found[:3], strict=True):
        k = len(group.completions)
        assert scores.preferences is not None
        asked = comparisons.pairs("circular", k, opponents=1, uid=group.uid)
        assert np.isnan(scores.preferences).sum() == k * (k - 1) - 2 * len(asked)
    assert found[3].rewards is not None  # alone, against the row's answer: itself
    assert abs(found[3].rewards[0] - 0.5) < 1e-5
