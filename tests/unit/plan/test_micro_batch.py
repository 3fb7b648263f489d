"""The largest micro-batch of a run's settings."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.plan.micro_batch import Layout


def layout(**given: int | bool) -> Layout:
    plain = Layout(prompt=16, completions=8, longest=5, groups=4, budget=40, share_prompt=True)
    return plain._replace(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        ({}, 40),  # filled up
        ({"budget": 10}, 20),  # one completion with its prompt is longer
        ({"budget": 10_000}, 4 * (16 + 8 * 4)),  # a step has no more
        ({"budget": 10_000, "share_prompt": False}, 4 * 8 * 20),
    ],
)
def test_it_fills_its_budget(given: dict[str, int], tokens: int) -> None:
    made = layout(**given)
    assert made.tokens == tokens
    assert made.largest().tokens_BL.numel() == tokens


def test_without_shared_prompts_whole_rows_fit() -> None:
    batch = layout(share_prompt=False, budget=50).largest()
    assert batch.tokens_BL.shape == (2, 20)
    assert batch.rows == "completion"


def test_completions_of_one_token_are_only_predicted() -> None:
    batch = layout(longest=1, budget=40).largest()
    assert batch.tokens_BL.shape == (1, 40)


def test_it_follows_from_a_runs_settings() -> None:
    run = config.load("math-7b", environment=False)
    found = Layout.of(run, shares=True)
    # 1,024 groups in 4 mini-batches, on 3 ranks
    assert found == Layout(
        prompt=1024, completions=1, longest=512, groups=86, budget=2048, share_prompt=True
    )
    assert not Layout.of(run, shares=False).share_prompt
