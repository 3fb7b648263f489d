"""A group's questions and what the answers add up to, against a judge on a real socket."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sppo.errors import ConfigError, ScorerError, ScorerRefused, ScorerSpent
from sppo.scorer import calls
from sppo.scorer.base import checked
from sppo.scorer.judge import patience
from sppo.scorer.judge.scorer import LlmJudge
from sppo.types import ScoreRequest
from tests.unit.scorer.judge.fake import (
    Fake,
    Handler,
    answers,
    chat,
    error,
    http,
    judges,
    longer,
    prompt,
    says,
    serve,
)

Test = Callable[[LlmJudge, Fake], Awaitable[None]]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.001)
    monkeypatch.setattr(patience, "LONGEST_S", 0.01)


def group(*completions: str, **data: Any) -> ScoreRequest:
    return ScoreRequest(uid="train-1", question="Why?", completions=completions, data=data)


def judged(handler: Handler, test: Test, **options: Any) -> Fake:
    async def go() -> Fake:
        async with serve(handler) as fake:
            judge = LlmJudge(url=fake.url, model="m", **options)
            await judge.setup()
            try:
                await test(judge, fake)
            finally:
                await judge.close()
            return fake

    return asyncio.run(go())


def test_every_pair_is_compared_in_both_orders() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        request = group("a", "bbb", "cc", "dd")
        reply = await judge.score(request)
        scores = checked("llm-judge", request, reply["preferences"])
        assert scores.preferences is not None
        assert scores.preferences.tolist() == [
            [0.5, 0, 0, 0], [1, 0.5, 1, 1], [1, 0, 0.5, 0.5], [1, 0, 0.5, 0.5]
        ]  # fmt: skip
        details = reply["details"][0]
        assert details["met"] == 3
        assert {"against": 1, "shown": "first", "wins": 0.0, "said": "B"} in details["judge"]
        assert {"against": 1, "shown": "second", "wins": 0.0, "said": "A"} in details["judge"]

    fake = judged(judges(longer), test)
    assert len({answers(body) for body in fake.bodies}) == 12


def test_a_judge_that_looks_at_the_position_alone_ends_in_ties() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group("a", "b", "c"))
        assert reply["preferences"] == [[0.5] * 3] * 3

    judged(judges(lambda _: "A"), test)


def test_one_order_has_half_of_the_calls_and_alternates() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group("a", "bb", "ccc"))
        assert [sum(row) for row in reply["preferences"]] == [0.5, 1.5, 2.5]

    fake = judged(judges(longer), test, both_orders=False)
    assert {answers(body) for body in fake.bodies} == {("bb", "a"), ("a", "ccc"), ("ccc", "bb")}


def test_a_circle_leaves_pairs_out() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group("a", "bb", "ccc", "dddd", "eeeee"))
        unmet = [sum(map(math.isnan, row)) for row in reply["preferences"]]
        assert unmet == [2] * 5

    fake = judged(judges(longer), test, compare="circular", opponents=1)
    assert len(fake.bodies) == 10


def test_equal_texts_are_a_tie_without_a_call_and_equal_questions_are_asked_once() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group("same", "same"))
        assert reply["preferences"] == [[0.5, 0.5], [0.5, 0.5]]
        assert judge.counts.calls == 0
        reply = await judge.score(group("same", "same", "x"))
        assert [row[2] for row in reply["preferences"]] == [1, 1, 0.5]
        assert judge.counts.calls == 2

    judged(judges(longer), test)


def test_what_cannot_be_read_was_not_compared() -> None:
    def unwilling(body: Any) -> str:
        return "I will not say" if "bb" in answers(body) else longer(body)

    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group("a", "bb", "ccc"))
        assert reply["preferences"][0][2] == 0
        assert math.isnan(reply["preferences"][0][1])
        assert judge.counts.unreadable == 4
        assert [each["met"] for each in reply["details"]] == [1, 0, 1]

    judged(judges(unwilling), test)


def test_a_group_of_which_nothing_can_be_read_is_refused_with_the_judges_words() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        with pytest.raises(ScorerError, match=r"none of 2 answers says .*'Both are nice'"):
            await judge.score(group("a", "bb"))

    judged(judges(lambda _: "Both are nice"), test)


def test_a_call_that_fails_for_good_costs_one_comparison_and_a_judge_that_does_the_group() -> None:
    async def broken(writer: asyncio.StreamWriter, body: dict[str, Any], _: int) -> None:
        ill = "bb" in answers(body)
        writer.write(http(b"boom", "500 X") if ill else chat(longer(body)))

    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group("a", "bb", "ccc"))
        assert math.isnan(reply["preferences"][0][1])
        assert reply["preferences"][2][0] == 1
        with pytest.raises(ScorerError, match="500: boom"):
            await judge.score(group("a", "bb"))

    judged(broken, test)


def test_a_flaky_judge_gives_the_same_as_a_sound_one() -> None:
    async def flaky(writer: asyncio.StreamWriter, body: dict[str, Any], n: int) -> None:
        bad = {1: error("429 Too Many", "later"), 3: http(b"<html>"), 5: http(b"", "502 X"),
               7: b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"}  # fmt: skip
        writer.write(bad.get(n % 9) or chat(longer(body)))

    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group(*("x" * n for n in range(1, 7))))
        assert [sum(row) for row in reply["preferences"]] == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]

    judged(flaky, test, max_concurrency=3)


def test_against_a_reference_each_gets_the_probability_to_beat_it() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group("a", "bbbb", "cc", gold="xx"))
        assert reply["rewards"] == [0.0, 1.0, 0.5]
        assert (await judge.score(group("bbb", gold="xx")))["rewards"] == [1.0]
        with pytest.raises(ScorerRefused, match=r"reference = 'gold': .*it has answer"):
            await judge.score(group("a", "b", answer="x"))

    fake = judged(judges(longer), test, compare="reference", reference="gold")
    assert len(fake.bodies) == 2 * 3 + 2


def test_a_single_completion_has_nobody_to_be_compared_with() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        assert (await judge.score(group("a")))["rewards"] == [0.5]

    assert not judged(judges(longer), test).bodies


def test_ratings_are_rewards_and_one_that_cannot_be_read_refuses_the_group() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group("2", "9"))
        assert (reply["rewards"], reply["details"][1]) == ([2.0, 9.0], {"said": "9/9"})
        with pytest.raises(ScorerError, match=r"1 of 2 answers .* cannot be read; .*'good/9'"):
            await judge.score(group("good", "3"))

    def rate(body: Any) -> str:
        return prompt(body).partition("[Answer]\n")[2].partition("\n")[0] + "/9"

    judged(judges(rate), test, mode="rating")


def test_the_mean_of_several_samples_is_taken() -> None:
    asked: Counter[str] = Counter()

    def rate(body: Any) -> str:  # 1, 2, 3 for each answer
        asked[prompt(body)] += 1
        return str(asked[prompt(body)])

    async def test(judge: LlmJudge, _: Fake) -> None:
        reply = await judge.score(group("2", "3"))
        assert reply["rewards"] == [pytest.approx(2.0)] * 2

    fake = judged(judges(rate), test, mode="rating", samples=3, temperature=1.0)
    assert len(fake.bodies) == 6


def test_at_a_limit_the_scorer_is_spent_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    cache = str(tmp_path / "judge.sqlite3")

    async def spend(judge: LlmJudge, _: Fake) -> None:
        with pytest.raises(ScorerSpent, match=r"max_calls, counted in .*judge.sqlite3; raise it"):
            await judge.score(group("a", "bb", "ccc"))
        counted = judge.counters()
        assert (counted["calls"], counted["retries"], counted["waits"]) == (4, 0, 0)

    async def go_on(judge: LlmJudge, _: Fake) -> None:
        await judge.score(group("a", "bb", "ccc"))
        assert (judge.counts.calls, judge.counts.cached) == (2, 4)

    assert len(judged(judges(longer), spend, cache=cache, max_calls=4).bodies) == 4
    assert len(judged(judges(longer), go_on, cache=cache, max_calls=6).bodies) == 2


def test_a_key_that_is_refused_is_told_with_the_mend() -> None:
    async def test(judge: LlmJudge, _: Fake) -> None:
        with pytest.raises(ScorerSpent, match="SPPO_SCORER__JUDGE__API_KEY"):
            await judge.score(group("a", "b"))

    judged(says(error("401 Unauthorized", "no")), test, api_key="wrong")


def test_many_groups_share_the_places_of_a_slow_judge() -> None:
    async def test(judge: LlmJudge, fake: Fake) -> None:
        begun = time.monotonic()
        groups = [group("a" * n, "b" * (n + 1), "c" * (n + 2)) for n in range(1, 9)]
        await asyncio.gather(*(judge.score(each) for each in groups))
        assert fake.most_at_once == 16
        assert time.monotonic() - begun >= 3 * 0.05

    assert len(judged(judges(longer, 0.05), test).bodies) == 48


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs scorer.judge.url and scorer.judge.model"),
        ({"url": "http://x"}, "needs scorer.judge.model"),
        ({"url": "x", "model": "m"}, "scorer.judge.url: must start with http"),
        ({"modle": "m"}, "scorer.judge.modle: "),
        ({"url": "http://x", "model": "m", "rubric": "gone"}, "scorer.judge.rubric = 'gone'"),
    ],
)
def test_a_judge_that_cannot_be_is_refused_before_anything_is_asked(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        LlmJudge(**options)


def test_a_judge_is_a_part_of_a_sum_and_keeps_its_time() -> None:
    async def go() -> None:
        async with serve(judges(lambda _: "7")) as fake:
            options = {"url": fake.url, "model": "m", "mode": "rating"}
            parts = [{"name": "llm-judge", "weight": 0.1, "options": options}]
            target = "sppo.scorer.compose:Compose"
            made = calls.load("compose", target, {"parts": [*parts, {"name": "exact-match"}]})
            assert made.keeps_time
            assert made.setup
            assert made.close
            await made.setup()
            (reply,) = await made.call([group("a", "b", answer="b")])  # type: ignore[list-item]
            await made.close()
            assert reply["rewards"] == [pytest.approx(0.7), pytest.approx(1.7)]

    asyncio.run(go())
