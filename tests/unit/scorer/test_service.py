"""The HTTP service on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from sppo.errors import ConfigError, ScorerError, ScorerRefused, ScorerSpent
from sppo.scorer import app as service_app
from sppo.scorer.client import HttpScorer
from sppo.scorer.service import Service
from sppo.types import Scores
from tests.unit.scorer.test_base import MINE, request, rewards


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
    health = httpx.get(f"{service.url}/healthz", headers={"Authorization": "Bearer sesame"}).json()
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
    assert httpx.get(f"{service.url}/healthz").status_code == 401


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


def test_a_service_whose_rule_never_returns_shows_no_progress(slow_rule: str) -> None:
    running = Service(slow_rule, token="", timeout_s=0.2)
    running.start()
    try:
        assert running.answers()
        with pytest.raises(ScorerError, match=r"no answer within scorer\.timeout_s = 0\.2"):
            ask(running.url, "", "a")
        assert not running.answers()
        health = httpx.get(f"{running.url}/healthz")
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
    monkeypatch.setattr(service_app, "QUEUE", 0)
    running = Service("last-number", token="")
    running.start()
    try:
        body = {"uid": "u", "question": "", "completions": ["1"], "data": {"answer": "1"}}
        reply = httpx.post(f"{running.url}/score", json=body)
        assert (reply.status_code, reply.headers["Retry-After"]) == (429, "1")
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


def test_a_spent_scorer_behind_http_is_spent() -> None:
    running = Service(f"{MINE}:spent", token="")
    running.start()
    try:
        with pytest.raises(ScorerSpent, match="words of ours"):
            ask(running.url, "", "spent")
    finally:
        running.stop()


def test_an_address_that_is_not_this_machines_is_refused_with_the_setting() -> None:
    with pytest.raises(
        ConfigError, match=r"scorer\.host = '203\.0\.113\.1', scorer\.port = 0: \S+"
    ):
        Service("last-number", token="sesame", host="203.0.113.1")
