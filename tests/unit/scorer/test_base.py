"""What a scorer is: its answers, its name, and in-process scoring."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
import pytest

from sppo.config import ObjectiveConfig
from sppo.errors import ConfigError, ScorerError
from sppo.scorer import base
from sppo.types import ScoreRequest, Scores

MINE = "tests.unit.scorer.functions"


def rewards(scores: Scores) -> list[float]:
    assert scores.rewards is not None
    assert scores.preferences is None
    return [float(r) for r in scores.rewards]


def score_now(scorer: base.InlineScorer, asked: ScoreRequest) -> Scores:
    async def once() -> Scores:
        try:
            return await scorer.score(asked)
        finally:
            await scorer.close()

    return asyncio.run(once())


def request(*completions: str) -> ScoreRequest:
    return ScoreRequest(
        uid="train-7", question="Calculate 9 - 12.", completions=completions, data={"answer": "-3"}
    )


REWARD = [1.0, 0.0]


BAD_PREFERENCES = {
    "does not add up": (
        [[0.5, 0.6], [0.6, 0.5]],
        "preferences[0][1] = 0.6, preferences[1][0] = 0.6: expected a sum",
    ),
    "outside": ([[0.5, 1.2], [-0.2, 0.5]], "expected probabilities within [0, 1]"),
    "compared from one side": ([[0.5, float("nan")], [0.5, 0.5]], "or NaN (null in JSON) in both"),
    "infinite": ([[0.5, float("inf")], [0.5, 0.5]], "expected finite numbers"),
    "nobody met": ([[0.5, None], [None, 0.5]], "preferences: no two completions were compared"),
    "diagonal": ([[1.0, 0.5], [0.5, 0.0]], "1/2 on the diagonal"),
    "not square": ([[0.5, 0.5]], "shape [1, 2]"),
    "ragged": ([[0.5, 0.5], [0.5]], "expected numbers"),
    "too large": ([[0.5] * 3] * 3, "shape [3, 3]"),
}


@pytest.mark.parametrize("case", BAD_PREFERENCES)
def test_bad_preferences_name_the_scorer_the_group_and_the_entry(case: str) -> None:
    reply, words = BAD_PREFERENCES[case]
    with pytest.raises(ScorerError) as caught:
        base.checked("judge", request("a", "b"), reply)
    assert "scorer judge, group train-7" in str(caught.value)
    assert words in str(caught.value)


def test_intransitive_preferences_are_legal_and_rounding_is_mended() -> None:
    scores = score_now(
        base.InlineScorer(f"{MINE}:rock_paper_scissors"), request("rock", "paper", "scissors")
    )
    assert scores.rewards is None
    assert scores.preferences is not None
    assert scores.preferences.tolist() == [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]

    # A judge that computes in bfloat16: 0.9 and 0.1 become 0.8984375 and 0.10009765625
    rounded = base.checked(
        "judge", request("a", "b"), [[0.5, 0.8984375], [0.10009765625, 0.498]]
    ).preferences
    assert rounded is not None
    assert rounded[0, 1] + rounded[1, 0] == 1
    assert rounded[1, 1] == 0.5


def test_an_evaluation_is_never_a_comparison() -> None:
    with pytest.raises(ScorerError, match="as in every evaluation"):
        base.checked("judge", request("a"), [[0.5]])
    assert rewards(base.checked("judge", request("a"), [1.0])) == [1.0]


@pytest.mark.parametrize(
    ("settings", "enough"),
    [
        ({"target": "half"}, False),
        ({"target": "half", "link": "bradley-terry"}, True),
        ({"target": "half", "select": "best_worst", "label": "hard"}, True),
        ({"target": "half", "select": "best_worst", "label": "pair"}, False),
        ({"target": "softmean"}, True),
    ],
)
def test_rewards_are_refused_where_the_objective_compares(
    settings: dict[str, Any], enough: bool
) -> None:
    scores = base.checked("judge", request("a", "b"), REWARD)
    config = ObjectiveConfig(**settings)
    if enough:
        base.check_kind(scores, config, "scorer judge, group train-7")
    else:
        with pytest.raises(ScorerError, match=r"judge.*train-7.*objective\.link"):
            base.check_kind(scores, config, "scorer judge, group train-7")
    comparison = base.checked("judge", request("a", "b"), [[0.5, 1.0], [0.0, 0.5]])
    base.check_kind(comparison, config, "scorer judge, group train-7")


def test_a_users_function_is_found_by_its_import_string_and_never_imported_here() -> None:
    scorer = base.InlineScorer(f"{MINE}:by_length")
    assert rewards(score_now(scorer, request("a", "bcd"))) == [1.0, 3.0]
    assert MINE not in sys.modules


@pytest.mark.parametrize("name", ["nope", "no.such.module:f", f"{MINE}:nope", f"{MINE}:time"])
def test_an_unknown_scorer_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"scorer\.name"):
        score_now(base.InlineScorer(name), request("a"))


BAD_ANSWERS = ["refuses", "one_short", "not_a_number", "too_large", "out_of_float32", "texts"]


@pytest.mark.parametrize("function", BAD_ANSWERS)
def test_a_bad_answer_names_the_scorer_and_the_group(function: str) -> None:
    with pytest.raises(ScorerError, match=f"{function}.*train-7"):
        score_now(base.InlineScorer(f"{MINE}:{function}"), request("a", "b"))


def test_tensors_and_arrays_are_numbers() -> None:
    import torch

    for made in (
        torch.ones(2, requires_grad=True),
        np.ones(2, np.float16),
        [np.float32(1), torch.tensor(1)],
    ):
        assert rewards(base.checked("mine", request("a", "b"), made)) == [1.0, 1.0]


NAN = float("nan")


def test_what_was_not_compared_is_nan_and_the_diagonal_needs_no_number() -> None:
    asked = request("a", "b", "c", "d")
    rows = [[NAN] * 4 for _ in range(4)]
    for i, j in ((0, 1), (1, 2)):  # the last meets nobody
        rows[i][j], rows[j][i] = 0.75, 0.25
    found = base.checked("judge", asked, rows).preferences
    assert found is not None
    expected = [
        [0.5, 0.75, NAN, NAN],
        [0.25, 0.5, 0.75, NAN],
        [NAN, 0.25, 0.5, NAN],
        [NAN] * 3 + [0.5],
    ]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_a_group_in_two_halves_is_refused() -> None:
    rows = [[0.5, 0.5, NAN, NAN], [0.5, 0.5, NAN, NAN], [NAN, NAN, 0.5, 0.5], [NAN, NAN, 0.5, 0.5]]
    with pytest.raises(ScorerError, match="no chain of comparisons leads from completion 0"):
        base.checked("judge", request("a", "b", "c", "d"), rows)


def test_details_come_with_the_scores_one_for_each_completion() -> None:
    details = [{"why": "right", "p": float("nan")}, {"why": "wrong"}]
    scores = base.checked("judge", request("a", "b"), {"rewards": [0.0, 0.0], "details": details})
    assert rewards(scores) == [0.0, 0.0]
    assert scores.details == [{"why": "right", "p": None}, {"why": "wrong"}]
    with pytest.raises(ScorerError, match="expected 2 details, got 1"):
        base.checked("judge", request("a", "b"), {"rewards": REWARD, "details": [{}]})


class Ranker:
    def __init__(self, *, log: str) -> None:
        self.log = log


def test_options_of_ours_are_checked_here_and_no_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(base.SCORERS, "ranker", f"{__name__}:Ranker")
    base.check_options("ranker", {"log": "x"})
    with pytest.raises(
        ConfigError,
        match=r"^scorer\.options\.lgo: no such option of ranker; did you mean log\?$",
    ):
        base.InlineScorer("ranker", options={"lgo": "x"})
    with pytest.raises(ConfigError, match=r"scorer\.options\.log: ranker needs it"):
        base.check_options("ranker", {})
    with pytest.raises(ConfigError, match=r"scorer\.options\.x: no such option of last-number"):
        base.check_options("last-number", {"x": 1})
