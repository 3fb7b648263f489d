"""Series of records that bring a warning, and some that must not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sppo.watch.steps import Steps, waited
from tests import makers

Shape = Callable[[int], Any]


def steps(**learner: Any) -> Steps:
    config = makers.run_config(learner=learner)
    return Steps(config.model_copy(update={"compute": "bfloat16"}))


def record(n: int, **changes: Any) -> dict[str, Any]:
    usual = {
        "step": n, "epoch": "a", "wall_s": 5.0 * n, "wait_s": 0.5, "skipped": None,
        "mismatch": 0.027, "mismatch_probe": None, "effective_sample_size": 1.0,
        "effective_sample_size_untruncated": 0.99, "no_signal_share": 0.6, "reward_mean": 0.3,
        "generated_length_mean": 12.0, "truncated_share": 0.2,
    }  # fmt: skip
    return usual | changes


def series(count: int, **shapes: Shape) -> list[dict[str, Any]]:
    return [
        record(n, **{name: shape(n) for name, shape in shapes.items()}) for n in range(1, count + 1)
    ]


def found(records: Sequence[dict[str, Any]], **learner: Any) -> dict[str, str]:
    """By topic the first finding's text."""
    judge, texts = steps(**learner), {}
    for each in records:
        for topic, finding in judge.judge(each):
            if finding is not None:
                texts.setdefault(topic, finding.text)
    return texts


BRING: list[tuple[dict[str, Shape], str, str]] = [
    (
        {"mismatch": lambda n: 0.01 if n < 20 else 0.04},
        "mismatch",
        "step 21: the mismatch of engine and learner is 0.03 nats a token, and was 0.01 at first",
    ),
    (
        {"mismatch": lambda n: None, "mismatch_probe": lambda n: [0.01, 0.011, 0.012, 0.05,
                                                                  0.051, 0.052][min(n // 6, 5)]},
        "mismatch",
        "0.051 nats a token, and was 0.011 at first",
    ),
    (
        {"effective_sample_size_untruncated": lambda n: 0.4 if n == 7 else 1.0},
        "effective sample size",
        "step 7: effective sample size 0.40: the batch is far from the policy; lower "
        "learner.lookahead_steps",
    ),
    (
        {"no_signal_share": lambda n: 0.95, "reward_mean": lambda n: 0.0},
        "equal scores",
        "step 10: 95% of the groups of 10 batches have nothing but equal scores (mean reward 0)",
    ),
    (
        {"generated_length_mean": lambda n: 10.0 + n},
        "lengths",
        "completions have 32 tokens, and had 16 at first",
    ),
    (
        {"generated_length_mean": lambda n: 40.0 / n},
        "lengths",
        "at first: the scorer may pay for length, or for brevity",
    ),
    (
        {"truncated_share": lambda n: 1 if n == 3 else 0.0},
        "truncation",
        "step 3: every completion ended at sampling.max_tokens = ",
    ),
    (
        {"truncated_share": lambda n: 0.1 if n <= 10 else 0.4},
        "truncation",
        "step 20: 40% of completions end at sampling.max_tokens",
    ),
    ({"skipped": lambda n: "nan" if n == 2 else None}, "skipped", "step 2 was skipped: nan"),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "topic", "words"), BRING)
def test_a_series_that_a_person_should_look_at(
    shapes: dict[str, Shape], topic: str, words: str
) -> None:
    texts = found(series(40, **shapes))
    assert set(texts) == {topic}
    assert words in texts[topic]


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"mismatch": lambda n: 1e-7 * n},  # rounding of float32, however it grows
        {"mismatch": lambda n: 0.02 if n < 20 else 0.05},  # not three times as much
        {"mismatch": lambda n: None},
        {"effective_sample_size_untruncated": lambda n: 0.6},
        {"no_signal_share": lambda n: 1.0 if n % 3 else 0.5},
        {"generated_length_mean": lambda n: 14.4 - 3.3 * min(1.0, n / 20)},  # quickstart
        {"truncated_share": lambda n: max(0.0, 0.7 - n / 40)},  # it learns to end its turns
        {"truncated_share": lambda n: 0.95},  # as it began
    ],
)
def test_a_series_of_a_run_that_is_well(shapes: dict[str, Shape]) -> None:
    assert found(series(40, **shapes)) == {}


def test_windows_are_of_batches_not_of_steps() -> None:
    """With 4 optimizer steps a batch nothing is judged of 10 of them."""
    shapes: dict[str, Shape] = {"generated_length_mean": lambda n: 10.0 + n}
    assert found(series(40, **shapes), steps=40, groups_per_step=8, mini_batches=4) == {}


def test_one_completion_has_nothing_to_be_equal_to() -> None:
    config = makers.run_config(sampling={"completions": 1}, objective={"target": "batch_softmean"})
    judge = Steps(config)
    said = [t for r in series(20, no_signal_share=lambda n: 1.0) for t, f in judge.judge(r) if f]
    assert said == []


def test_the_share_of_time_that_was_waited_is_of_one_life() -> None:
    records = series(11, wait_s=lambda n: 4.0)
    assert waited(records, 11) == pytest.approx(0.8)
    assert waited(records, 12) is None
    again = [r | {"epoch": "b", "wall_s": r["wall_s"] - 20} for r in records[-3:]]
    assert waited([*records[:5], *again], 8) is None
    assert waited([*records[:5], *again], 3) == pytest.approx(0.8)
