"""What the service answers, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
import pytest

from sppo.metrics import BusyClock
from sppo.scorer import app, base
from sppo.scorer.meter import Meter

GROUP: dict[str, Any] = {"uid": "u", "question": "q", "completions": ["a", "bc"], "data": {}}
SECRET = {"Authorization": "Bearer sesame"}


def partly(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> Any:
    """Compares the first two alone, and says so; refuses what it was told to."""
    if "refuse" in data:
        raise ValueError(data["refuse"])
    k = len(completions)
    met = [[0.5 if {i, j} <= {0, 1} else None for j in range(k)] for i in range(k)]
    details = [{"text": text, "p": float("nan")} for text in completions]
    return {"preferences": met, "details": details}


def ask(
    path: str, content: Any = None, headers: Mapping[str, str] = SECRET, method: str = "POST"
) -> httpx.Response:
    async def once() -> httpx.Response:
        scorer = base.InlineScorer("partly", timeout_s=5.0)
        served = app.build(scorer, Meter(BusyClock()), "sesame", timeout_s=5.0)
        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            kind = {"Content-Type": "application/json"}
            reply = await client.request(method, path, content=content, headers={**kind, **headers})
        await scorer.close()
        return reply

    return asyncio.run(once())


@pytest.fixture(autouse=True)
def _rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base.SCORERS, "partly", partly)


def score(**fields: Any) -> httpx.Response:
    return ask("/score", json.dumps(GROUP | fields))


def test_what_was_not_compared_is_null_and_details_are_sent() -> None:
    reply = score(completions=["a", "b", "c"])
    assert reply.json() == {
        "preferences": [[0.5, 0.5, None], [0.5, 0.5, None], [None, None, 0.5]],
        "details": [{"text": text, "p": None} for text in "abc"],
    }


def test_a_whole_request_is_taken() -> None:
    body = app.ScoreBody.model_validate(
        GROUP | {"messages": [{"role": "user", "content": "q"}], "lengths": [1, 2]}
    )
    asked = body.request()
    assert (asked.messages, asked.lengths, asked.versions) == ((("user", "q"),), [1, 2], [])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lengths": [1]}, "lengths has 1 entries for 2 completions"),
        ({"completions": []}, "completions: List should have at least 1 item"),
        ({"question": 3}, "question: Input should be a valid string"),
        ({"data": {"refuse": "half \ud800"}}, "ValueError: half \ud800"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_in_words(fields: dict[str, Any], words: str) -> None:
    reply = score(**fields)
    assert reply.status_code == 422
    assert words in reply.json()["detail"]


def test_no_token_no_answer() -> None:
    for path, method in (("/score", "POST"), ("/healthz", "GET"), ("/metrics", "GET")):
        reply = ask(path, json.dumps(GROUP), {}, method)
        assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_body_beyond_the_limit_is_refused_however_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "LONGEST_BODY", 1000)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100

    for content in (b" " * 1001, parts()):
        reply = ask("/score", content)
        assert (reply.status_code, "at most 1000" in reply.json()["detail"]) == (413, True)


def test_metrics_and_health_count_what_was_asked() -> None:
    assert ask("/healthz", method="GET").json()["scorer"] == "partly"
    reply = ask("/metrics", method="GET")
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert 'sppo_scorer_groups_total{outcome="scored"} 0' in reply.text
