"""Tokens, targets and groups that do not fit each other are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sppo.kernels import sequence_log_ratios, sppo_loss
from tests.unit.kernels.loss.test_dispatch import TOKENS, data


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"logprob_T": torch.ones(TOKENS, dtype=torch.int64)},
            r"logprob_T is int64 \[7\].*floating \[T\]",
        ),
        ({"anchor_T": torch.ones(6)}, r"anchor_T .*\[6\].*expected a floating \[7\]"),
        (
            {"behavior_T": torch.ones(TOKENS, device="meta")},
            "behavior_T .*on meta: expected .* on cpu",
        ),
        ({"mask_T": torch.ones(TOKENS, 1)}, r"mask_T .*\[7, 1\].*expected a bool \[7\]"),
        ({"cu_seqlens": torch.tensor([0.0, 7.0])}, "cu_seqlens is float32"),
        (
            {"cu_seqlens": torch.tensor([0, 3, 6])},
            r"cu_seqlens \[3\]: expected offsets that rise from 0 to 7",
        ),
        ({"cu_seqlens": torch.tensor([0, 8, 7])}, r"cu_seqlens \[3\]: expected offsets that rise"),
        ({"targets_N": torch.rand(3)}, r"targets_N .*\[3\].*expected a floating \[2\]"),
        (
            {"group_offsets": torch.tensor([0, 1])},
            r"group_offsets \[2\]: expected offsets that rise from 0 to 2",
        ),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], words: str) -> None:
    given = data() | {"group_offsets": None} | changes
    with pytest.raises(ValueError, match=words):
        sppo_loss(**given, eta=1.0)
    if not changes.keys() & {"targets_N", "group_offsets"}:
        del given["targets_N"], given["group_offsets"]
        with pytest.raises(ValueError, match=words):
            sequence_log_ratios(**given)
