"""A sum of scorers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sppo.errors import ConfigError, ScorerRefused
from sppo.scorer import base, calls
from sppo.scorer.compose import Compose

MINE = __name__
REQUEST = calls.Request(
    uid="u",
    question="q",
    completions=["the sum is 4", r"\boxed{5}"],
    data={"answer": "4"},
    lengths=[10, 20],
)


def by_length(request: Any) -> list[float]:
    return [float(len(text)) for text in request.completions]


async def awaited(request: Any) -> list[float]:
    await asyncio.sleep(0)
    return by_length(request)


def partly(request: Any) -> list[list[float | None]]:
    """Compares the first two alone."""
    k = range(len(request.completions))
    return [[{(0, 1): 0.75, (1, 0): 0.25}.get((i, j)) for j in k] for i in k]


def ask(*parts: dict[str, Any], **options: Any) -> dict[str, Any]:
    made = Compose(parts=list(parts), **options)
    reply = made.score(REQUEST)
    if asyncio.iscoroutine(reply):
        reply = asyncio.run(reply)
    return dict(reply)


def test_rewards_are_weighed_and_summed() -> None:
    found = ask({"name": "last-number"}, {"name": f"{MINE}:by_length", "weight": 0.1})
    assert found["rewards"] == pytest.approx([1 + 1.2, 0.9])
    assert found["details"][0] == {
        "last-number": {"reward": 1.0},
        f"{MINE}:by_length": {"reward": 12.0},
    }


def test_the_format_is_rewarded_and_length_costs() -> None:
    options = {"format": r"\\boxed\{.*\}", "format_reward": 0.5, "length_penalty": 0.01}
    found = ask({"name": "last-number"}, **options)
    assert found["rewards"] == pytest.approx([1 - 0.1, 0.5 - 0.2])
    assert [each["format"] for each in found["details"]] == [False, True]


class Patient:
    keeps_time = True

    async def score(self, request: Any) -> list[float]:
        return by_length(request)


def test_a_part_that_keeps_time_lets_the_sum_keep_it() -> None:
    options = {"parts": [{"name": f"{MINE}:Patient"}, {"name": "last-number"}]}
    assert calls.load("compose", "sppo.scorer.compose:Compose", options).keeps_time
    options = {"parts": [{"name": f"{MINE}:awaited"}]}
    assert not calls.load("compose", "sppo.scorer.compose:Compose", options).keeps_time


def test_an_async_part_makes_the_sum_async() -> None:
    parts = [{"name": f"{MINE}:awaited"}, {"name": "last-number"}]
    assert asyncio.iscoroutinefunction(Compose(parts=parts).score)
    assert ask(*parts)["rewards"] == [13.0, 9.0]


def test_preferences_are_averaged_and_what_one_has_not_compared_is_not() -> None:
    compare = {"name": "closest-number", "weight": 0.75}
    found = ask(compare, {"name": f"{MINE}:partly", "weight": 0.25})
    assert found["preferences"] == [[0.5, 0.75 + 0.25 * 0.75], [0.25 * 0.25, 0.5]]


@pytest.mark.parametrize(
    ("parts", "options", "words"),
    [
        ([1, 1], {}, "the weights of scorers that compare sum to 1, not 2"),
        ([0.5, 0.5], {"length_penalty": 0.1}, "are rewards, and the parts compare"),
    ],
)
def test_preferences_have_no_rewards_added(
    parts: list[float], options: dict[str, Any], words: str
) -> None:
    compare = [{"name": "closest-number", "weight": weight} for weight in parts]
    with pytest.raises(ScorerRefused, match=words):
        ask(*compare, **options)


def test_rewards_and_preferences_have_no_sum() -> None:
    with pytest.raises(
        ScorerRefused, match="last-number gives rewards, closest-number gives preferences"
    ):
        ask({"name": "last-number"}, {"name": "closest-number"})


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "scorer.options.parts = []: name at least one scorer"),
        ([{"nmae": "math"}], "parts[0].nmae: no such option of compose; did you mean name"),
        ([{"name": "maths"}], "scorer.options.parts[0].name = 'maths': no such scorer"),
        ([{"name": "last-number", "weight": "x"}], "parts[0].weight = 'x': must be a number"),
        ([{"name": "last-number", "options": {"a": 1}}], "parts[0].options.a: no such option"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_is_named(parts: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        base.check_options("compose", {"parts": parts})
    assert words in str(caught.value)


def test_a_format_that_is_no_expression_is_named() -> None:
    with pytest.raises(ConfigError, match=r"scorer\.options\.format = '\(': missing \)"):
        base.check_options("compose", {"parts": [{"name": "last-number"}], "format": "("})


class Counting:
    def counters(self) -> dict[str, int]:
        return {"calls": 2, "refused": 0}

    def score(self, request: Any) -> list[float]:
        return by_length(request)


def test_what_parts_count_is_added_up() -> None:
    part = {"name": f"{MINE}:Counting"}
    made = Compose(parts=[part, part, {"name": f"{MINE}:by_length"}])
    assert made.counters is None  # before they are imported
    assert callable(made.score)
    assert made.counters is not None
    assert made.counters() == {"calls": 4, "refused": 0}  # what never happened is told too
