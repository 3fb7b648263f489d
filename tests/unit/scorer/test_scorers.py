"""Scorers in-process and behind a real HTTP service on loopback."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from sppo.config import ObjectiveConfig
from sppo.errors import ConfigError, RoleDiedError, ScorerError, ScorerRefused
from sppo.scorer import base, rules
from sppo.scorer import service as service_module
from sppo.scorer.client import HttpScorer
from sppo.scorer.service import Service
from sppo.scorer.threads import THREADS
from sppo.types import ScoreRequest, Scores

MINE = "tests.unit.scorer.functions"


def rewards(scores: Scores) -> list[float]:
    assert scores.rewards is not None
    assert scores.preferences is None
    return [float(r) for r in scores.rewards]


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
    "not a number": ([[0.5, float("nan")], [0.5, 0.5]], "expected finite numbers"),
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
    scores = base.InlineScorer(f"{MINE}:rock_paper_scissors").score_now(
        request("rock", "paper", "scissors")
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


def test_the_rules() -> None:
    texts = ["-3", " -3\n", "It is -3.", "3", "1 - 4 = -3", "none"]
    assert rules.exact_match("", texts, {"answer": "-3"}) == [1, 1, 0, 0, 0, 0]
    assert rules.last_number("", texts, {"answer": "-3"}) == [1, 1, 1, 0, 1, 0]
    assert rules.last_number("", ["1,234"], {"answer": "1234"}) == [1]


def test_closest_number_compares_and_rewards_an_evaluation() -> None:
    table = rules.closest_number("", ["-3", "5", "none", "5"], {"answer": "-3"})
    assert table == [[0.5, 1, 1, 1], [0, 0.5, 1, 0.5], [0, 0, 0.5, 0], [0, 0.5, 1, 0.5]]
    assert rules.closest_number("", ["-3"], {"answer": "-3"}) == [1]


def test_boxed_answers_with_nested_braces() -> None:
    texts = [
        r"so \boxed{\frac{1}{2}}",
        r"\boxed{1} then \boxed{ \frac{1} {2} }",
        r"\frac{1}{2}",
        r"\boxed{1",
    ]
    assert rules.boxed_answer("", texts, {"answer": r"\frac{1}{2}"}) == [1, 1, 0, 0]
    assert rules.boxed_answer("", texts, {"answer": r"We get \boxed{\frac{1}{2}}."}) == [1, 1, 0, 0]


def test_reasoning_gym_scores_its_own_entries() -> None:
    data = {"answer": "84", "metadata": {"source_dataset": "chain_sum"}}
    assert rules.reasoning_gym_score("", ["84", "85"], data)[0] == 1.0
    assert rules.reasoning_gym_score("", ["84", "85"], data)[1] < 1.0


def test_a_users_function_is_found_by_its_import_string_and_never_imported_here() -> None:
    scorer = base.InlineScorer(f"{MINE}:by_length")
    assert rewards(scorer.score_now(request("a", "bcd"))) == [1.0, 3.0]
    assert MINE not in sys.modules


@pytest.mark.parametrize("name", ["nope", "no.such.module:f", f"{MINE}:nope", f"{MINE}:time"])
def test_an_unknown_scorer_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"scorer\.name"):
        base.InlineScorer(name).score_now(request("a"))


BAD_ANSWERS = ["refuses", "one_short", "not_a_number", "too_large", "out_of_float32", "texts"]


@pytest.mark.parametrize("function", BAD_ANSWERS)
def test_a_bad_answer_names_the_scorer_and_the_group(function: str) -> None:
    with pytest.raises(ScorerError, match=f"{function}.*train-7"):
        base.InlineScorer(f"{MINE}:{function}").score_now(request("a", "b"))


def test_tensors_and_arrays_are_numbers() -> None:
    import numpy as np
    import torch

    for made in (
        torch.ones(2, requires_grad=True),
        np.ones(2, np.float16),
        [np.float32(1), torch.tensor(1)],
    ):
        assert rewards(base.checked("mine", request("a", "b"), made)) == [1.0, 1.0]


def test_an_error_of_a_rule_of_ours_would_come_again() -> None:
    bad = ScoreRequest(uid="train-7", question="q", completions=["1"], data={"answer": "none"})
    with pytest.raises(ScorerRefused, match=r"train-7.*holds no number"):
        base.InlineScorer("last-number").score_now(bad)


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service("last-number", token="sesame")
    running.start()
    yield running
    running.stop()


def ask(url: str, token: str, *completions: str) -> Scores:
    async def run() -> Scores:
        scorer = HttpScorer(lambda: [url], token=token, timeout_s=5)
        try:
            return await scorer.score(request(*completions))
        finally:
            await scorer.close()

    return asyncio.run(run())


def test_the_service_scores_what_the_rule_scores(service: Service) -> None:
    assert rewards(ask(service.url, "sesame", "-3", "4")) == [1.0, 0.0]
    health = httpx.get(f"{service.url}/health", headers={"Authorization": "Bearer sesame"}).json()
    assert (health["scorer"], health["scored"]) == ("last-number", 1)


def test_the_service_compares_what_the_function_compares() -> None:
    running = Service(f"{MINE}:rock_paper_scissors", token="")
    running.start()
    try:
        scores = ask(running.url, "", "rock", "paper")
    finally:
        running.stop()
    assert scores.preferences is not None
    assert scores.preferences.tolist() == [[0.5, 0.0], [1.0, 0.5]]
    assert scores.rewards is None


def test_the_service_refuses_strangers(service: Service) -> None:
    with pytest.raises(
        ConfigError, match="SPPO_SCORER__TOKEN"
    ):  # ends the role: no group is to blame
        ask(service.url, "guess", "-3")
    assert httpx.get(f"{service.url}/health").status_code == 401


def test_the_service_describes_itself(service: Service) -> None:
    assert "/score" in httpx.get(f"{service.url}/openapi.json").json()["paths"]


def test_a_scorer_that_fails_behind_http_is_a_refusal_with_its_reason() -> None:
    running = Service(f"{MINE}:refuses", token="")
    running.start()
    try:
        with pytest.raises(ScorerError, match="out of opinions"):
            ask(running.url, "", "a")
    finally:
        running.stop()


def test_a_service_that_comes_late_is_waited_for() -> None:
    async def run() -> list[float]:
        late = Service("last-number", token="")
        urls: list[str] = []
        scorer = HttpScorer(lambda: urls, token="", timeout_s=5)
        waiting = asyncio.create_task(scorer.score(request("-3")))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        late.start()
        urls.append(late.url)
        scores = await waiting
        await scorer.close()
        late.stop()
        return rewards(scores)

    assert asyncio.run(run()) == [1.0]


def test_no_token_beyond_loopback_is_refused() -> None:
    with pytest.raises(ConfigError, match="SPPO_SCORER__TOKEN"):
        Service("last-number", token="", host="0.0.0.0")


def stuck(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """A rule that takes its time."""
    time.sleep(1.0)
    return [0.0] * len(completions)


@pytest.fixture
def slow_rule(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(base.SCORERS, "stuck", stuck)
    return "stuck"


def test_a_rule_that_takes_too_long_refuses_the_group_and_holds_nobody_else_up(
    slow_rule: str,
) -> None:
    async def several() -> float:
        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(2)
        )  # as on a small machine
        scorer = base.InlineScorer(slow_rule, timeout_s=0.3)
        started = time.monotonic()
        scoring = asyncio.gather(
            *(scorer.score(request("a")) for _ in range(THREADS - 1)), return_exceptions=True
        )
        await asyncio.sleep(0.05)
        await asyncio.to_thread(int)  # the pool that heartbeats use
        free_after = time.monotonic() - started
        found = await scoring
        assert all(isinstance(e, ScorerError) and "scorer.timeout_s = 0.3" in str(e) for e in found)
        await scorer.close()
        return free_after

    assert asyncio.run(several()) < 0.8


def test_a_process_whose_every_thread_is_stuck_says_so_and_ends(slow_rule: str) -> None:
    async def all_of_them() -> list[Any]:
        scorer = base.InlineScorer(slow_rule, timeout_s=0.2)
        calls = (scorer.score(request("a")) for _ in range(THREADS))
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(scorer.fault, RoleDiedError)
        await scorer.close()
        return list(found)

    found = asyncio.run(all_of_them())
    assert {type(e) for e in found} <= {RoleDiedError, ScorerError}
    assert RoleDiedError in {type(e) for e in found}


def test_a_service_whose_rule_never_returns_shows_no_progress(slow_rule: str) -> None:
    running = Service(slow_rule, token="", timeout_s=0.2)
    running.start()
    try:
        assert running.answers()
        with pytest.raises(ScorerError, match=r"no answer within scorer\.timeout_s = 0\.2"):
            ask(running.url, "", "a")
        assert not running.answers()
        health = httpx.get(f"{running.url}/health")
        assert (health.status_code, "do not return" in health.text) == (503, True)
    finally:
        running.stop()


def test_a_service_of_a_function_that_cannot_be_imported_has_a_fault() -> None:
    running = Service(f"{MINE}:nope", token="")
    running.start()
    try:
        with pytest.raises(ScorerRefused, match="cannot be imported"):
            ask(running.url, "", "a")
        assert isinstance(running.fault, ConfigError)
    finally:
        running.stop()


def test_a_service_with_enough_in_hand_says_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "QUEUE", 0)
    running = Service("last-number", token="")
    running.start()
    try:
        body = {"uid": "u", "question": "", "completions": ["1"], "data": {"answer": "1"}}
        reply = httpx.post(f"{running.url}/score", json=body)
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    finally:
        running.stop()


def test_many_groups_at_once_are_scored_by_a_users_function_behind_http() -> None:
    running = Service(f"{MINE}:awaited", token="")
    running.start()

    async def many() -> list[Scores]:
        scorer = HttpScorer(lambda: [running.url], token="", timeout_s=20)
        try:
            return await asyncio.gather(*(scorer.score(request("x" * (i % 7))) for i in range(150)))
        finally:
            await scorer.close()

    try:
        assert [rewards(s) for s in asyncio.run(many())] == [[float(i % 7)] for i in range(150)]
        assert running.scored == 150
    finally:
        running.stop()
