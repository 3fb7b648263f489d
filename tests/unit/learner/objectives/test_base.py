"""The kept part of a batch."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.unit.learner.objectives import makers


def test_all_kept_is_the_batch_itself() -> None:
    batch = makers.random_batch()
    assert batch.kept() is batch


def test_the_kept_completions_alone() -> None:
    keep_N = torch.tensor([True, False, False, False, False, True, True, False, True])
    batch = makers.random_batch(compared=True, keep_N=keep_N)
    batch = replace(batch, target_N=torch.arange(9.0))
    kept = batch.kept()
    assert kept.length_N.tolist() == [3, 2, 3, 2]
    assert kept.group_offsets.tolist() == [0, 1, 1, 4]  # the second group keeps none
    assert kept.target_N is not None
    assert kept.target_N.tolist() == [0, 5, 6, 8]
    assert kept.keep_N.all()
    assert kept.logprob_T.tolist() == [
        *batch.logprob_T[:3].tolist(),
        *batch.logprob_T[15:20].tolist(),
        *batch.logprob_T[21:].tolist(),
    ]
    assert kept.preferences is not None
    assert batch.preferences is not None
    assert [matrix.shape for matrix in kept.preferences] == [(1, 1), (0, 0), (3, 3)]
    rows = torch.tensor([0, 1, 3])
    assert torch.equal(kept.preferences[2], batch.preferences[2][rows][:, rows])
    assert kept.completions == batch.completions  # the normaliser is of the whole mini-batch
