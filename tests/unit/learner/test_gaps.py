"""What is said about a difference of log-probs, by where in completions it lies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.learner.gaps import Gaps, likely_cause

LENGTHS = (40, 3, 80)


def gaps(shape: Any) -> Gaps:
    """Those of completions whose token i of n is off by `shape(i, n)` nats."""
    gap_T = torch.tensor([float(shape(i, n)) for n in LENGTHS for i in range(n)])
    return Gaps.of(gap_T, torch.tensor([0, 40, 43, 123]), torch.ones(123, dtype=torch.bool))


@pytest.mark.parametrize(
    ("shape", "cause"),
    [
        (lambda i, n: 0.5, "it is everywhere: look at the temperature"),
        (
            lambda i, n: 0.5 * (i == n - 1),
            "the last token of completions: look at the tokens that end a turn",
        ),
        (lambda i, n: 0.5 * (i > 35), "it grows with the position: look at sliding windows"),
        (lambda i, n: 0.02 * i, "it grows with the position"),
    ],
)
def test_the_likely_cause_follows_from_where_the_difference_lies(shape: Any, cause: str) -> None:
    assert cause in likely_cause(gaps(shape))


def test_gaps_travel_between_ranks_and_only_chosen_tokens_count() -> None:
    chosen_T = torch.tensor([True, False, True, True])
    made = Gaps.of(torch.tensor([0.1, 9.0, 0.3, 0.5]), torch.tensor([0, 3, 4]), chosen_T)
    there = Gaps.join([Gaps.unpack(made.pack()), Gaps.unpack(Gaps.join([]).pack())])

    def same(left: Tensor, right: list[float]) -> bool:
        return left.tolist() == pytest.approx(right)

    assert same(there.gap_T, [0.1, 0.3, 0.5])
    assert same(there.at_T, [0, 2, 0])
    assert same(there.left_T, [2, 0, 0])
    assert there.mean == pytest.approx(0.3)
