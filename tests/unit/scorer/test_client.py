"""The client against services of others: some lie, some are slow, some break."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from sppo.errors import ConfigError, ScorerError, ScorerRefused, ScorerSpent
from sppo.scorer import client
from sppo.scorer.client import HttpScorer
from sppo.types import ScoreRequest, Scores

TIMEOUT_S = 0.6
Handler = Callable[[asyncio.StreamWriter, int], Awaitable[None]]
GROUP = ScoreRequest(
    uid="train-7", question="q", completions=["a", "b"], data={"n": 2**70, "x": float("inf")}
)
GOOD = b'{"rewards": [1.0, 0]}'


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(head).encode() + body


def says(*replies: bytes) -> Handler:
    """Answers with each in turn, then with the last."""

    async def handle(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(replies[min(number, len(replies) - 1)])

    return handle


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A service on loopback; its address, and the bodies that it has got."""
    bodies: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                int(h.split(b":")[1])
                for h in head.split(b"\r\n")
                if h.lower().startswith(b"content-length")
            )
            bodies.append(await reader.readexactly(size))
            await handler(writer, len(bodies) - 1)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", bodies
    finally:
        server.close()


def ask(
    handler: Handler, *, timeout_s: float = TIMEOUT_S
) -> tuple[Scores | BaseException, float, list[bytes]]:
    """What becomes of a group, after how many seconds, and what the service was sent."""

    async def run() -> tuple[Scores | BaseException, float, list[bytes]]:
        async with serve(handler) as (url, bodies):
            scorer = HttpScorer(lambda: [url], token="t", timeout_s=timeout_s)
            started = time.monotonic()
            (found,) = await asyncio.gather(scorer.score(GROUP), return_exceptions=True)
            took_s = time.monotonic() - started
            await scorer.close()
            return found, took_s, bodies

    return asyncio.run(run())


async def drips(writer: asyncio.StreamWriter, number: int) -> None:
    """A byte now and then, for ever: every read is quick."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def drips_headers(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def silent(writer: asyncio.StreamWriter, number: int) -> None:
    await asyncio.sleep(30)


async def floods(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(64):
        writer.write(b" " * (1 << 20))
        await writer.drain()


async def hangs_up(writer: asyncio.StreamWriter, number: int) -> None:
    """Nothing at all."""


def packed(body: bytes) -> bytes:
    return reply(gzip.compress(body), "200 OK", "Content-Encoding: gzip")


LIES: dict[str, tuple[Handler, str]] = {
    "NaN": (says(reply(b'{"rewards": [NaN, 1]}')), "not a finite float32"),
    "infinite": (says(reply(b'{"rewards": [1e999, 1]}')), "not a finite float32"),
    "huge integer": (
        says(reply(b'{"rewards": [1' + b"0" * 400 + b", 1]}")),
        "beyond what a float holds",
    ),
    "huger integer": (says(reply(b'{"rewards": [1' + b"0" * 9000 + b", 1]}")), "not JSON"),
    "short": (
        says(reply(b'{"rewards": [1]}')),
        r"expected 2 rewards or 2 rows of 2 preferences, got shape \[1\]",
    ),
    "texts": (says(reply(b'{"rewards": ["1.0", "0"]}')), "not JSON numbers"),
    "truth": (says(reply(b'{"rewards": [true, false]}')), "not JSON numbers"),
    "null": (says(reply(b'{"rewards": [null, 1]}')), "not JSON numbers"),
    "nested": (says(reply(b'{"rewards": [[1], [1]]}')), "wrong form"),
    "both": (
        says(reply(b'{"rewards": [1, 1], "preferences": [[0.5, 0.5], [0.5, 0.5]]}')),
        "or with both",
    ),
    "neither": (says(reply(b"{}")), "without rewards or preferences"),
    "a list": (says(reply(b"[1, 1]")), "no JSON object"),
    "HTML": (says(reply(b"<html>gateway</html>")), "not JSON.*gateway"),
    "deep": (
        says(reply(b'{"rewards": ' + b"[" * 200_000 + b"]" * 200_000 + b"}")),
        "nested too deeply",
    ),
    "one-sided": (
        says(reply(b'{"preferences": [[0.5, 0.7], [0.7, 0.5]]}')),
        r"asked in both, and P\[i\]\[j\] =",
    ),
    "large": (floods, "more than 4 MiB"),
    "large once unpacked": (says(packed(b" " * (64 << 20) + GOOD)), "more than 4 MiB"),
    "packed badly": (
        says(reply(b"nonsense", "200 OK", "Content-Encoding: gzip")),
        "cannot be unpacked",
    ),
    "packed otherwise": (
        says(reply(GOOD, "200 OK", "Content-Encoding: br")),
        "'br', which was not asked for",
    ),
    "silent": (silent, r"no whole answer within scorer\.timeout_s = 0\.6"),
    "drips": (drips, "no whole answer"),
    "drips headers": (drips_headers, "no whole answer"),
    "error": (says(reply(b"boom", "500 Oh")), "answered 500: boom"),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_refused_by_name_within_one_deadline(lie: str) -> None:
    handler, words = LIES[lie]
    found, took_s, _ = ask(handler)
    assert type(found) is ScorerError  # the ticket is tried again
    with pytest.raises(ScorerError, match=words):
        raise found
    assert "train-7" in str(found)
    assert "http://127.0.0.1:" in str(found)
    assert took_s < TIMEOUT_S + 0.5


FINAL: dict[str, tuple[Handler, str]] = {
    "no such page": (says(reply(b"nothing here", "404 Not Found")), "answered 404: nothing here"),
    "too large": (
        says(reply(b'{"detail": "a long story"}', "413 No")),
        "answered 413: a long story",
    ),
    "elsewhere": (
        says(reply(b"", "307 There", "Location: /other/score")),
        "307.*'/other/score'.*scorer.url",
    ),
    "hangs up": (hangs_up, "3 times, the last time alone, .*the connection broke"),
    "half a body": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + GOOD),
        "the connection broke",
    ),
}


@pytest.mark.parametrize("case", FINAL)
def test_what_would_come_again_is_final(case: str) -> None:
    handler, words = FINAL[case]
    found, took_s, bodies = ask(handler)
    assert isinstance(found, ScorerRefused)
    with pytest.raises(ScorerRefused, match=words):
        raise found
    assert len(bodies) == (3 if "broke" in words else 1)
    assert took_s < TIMEOUT_S + 0.5


def test_a_refusal_that_may_go_away_says_so() -> None:
    found, _, bodies = ask(says(reply(b'{"detail": "out of opinions", "again": true}', "422 No")))
    assert type(found) is ScorerError
    assert "out of opinions" in str(found)
    assert len(bodies) == 1


def test_honest_answers_are_taken_also_packed_and_after_an_error() -> None:
    for handler in (
        says(reply(GOOD)),
        says(packed(GOOD)),
        says(reply(b"", "502 Bad"), reply(GOOD)),
    ):
        found, _, bodies = ask(handler)
        assert isinstance(found, Scores)
        assert found.rewards is not None
        assert found.rewards.tolist() == [1.0, 0.0]
        assert json.loads(bodies[0])["data"] == {"n": 2**70, "x": None}


def test_a_busy_service_is_asked_later_and_that_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "RETRY_S", 0.05)
    date = "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"
    busy = [
        reply(b"", "503 Busy"),
        reply(b"", "429 Busy", "Retry-After: 0.01"),
        reply(b"", "429 Busy", date),
    ] * 3
    found, _, bodies = ask(says(*busy, reply(GOOD)))
    assert isinstance(found, Scores)
    assert len(bodies) == 10  # more often than an error is tried


def test_patience_with_a_busy_service_ends_and_is_told() -> None:
    found, took_s, _ = ask(says(reply(b"slow down", "429 Busy", "Retry-After: 1")), timeout_s=0.2)
    assert "has been busy for 1.6 s (8 x scorer.timeout_s)" in str(found)
    assert "429: slow down" in str(found)
    assert took_s < 2.5


def test_a_refused_token_ends_the_role() -> None:
    found, _, _ = ask(says(reply(b"", "401 No")))
    assert isinstance(found, ConfigError)


def test_a_service_that_will_score_nothing_more_says_402() -> None:
    found, _, bodies = ask(says(reply(b'{"detail": "the limit is reached"}', "402 Payment")))
    assert isinstance(found, ScorerSpent)
    assert "the limit is reached" in str(found)
    assert len(bodies) == 1


def test_a_group_that_kills_its_service_is_found_among_those_that_were_in_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "RETRY_S", 0.05)
    # Given a service that breaks every connection when it is given one group
    open_: set[asyncio.StreamWriter] = set()
    bodies: list[bytes] = []

    async def handle(writer: asyncio.StreamWriter, number: int) -> None:
        open_.add(writer)
        await asyncio.sleep(0.05)
        if b"POISON" in bodies[number]:
            for each in open_:
                each.transport.abort()
            open_.clear()
        elif writer in open_:
            open_.discard(writer)
            writer.write(reply(GOOD))

    async def run() -> list[Scores | BaseException]:
        nonlocal bodies
        async with serve(handle) as (url, bodies):
            scorer = HttpScorer(lambda: [url], token="", timeout_s=10)
            texts = ["fine", "POISON", "fine", "fine"]
            groups = [
                ScoreRequest(uid=f"u{i}", question=t, completions=["a", "b"], data={})
                for i, t in enumerate(texts)
            ]
            found = await asyncio.gather(*(scorer.score(g) for g in groups), return_exceptions=True)
            await scorer.close()
            return list(found)

    # When it is among others
    found = asyncio.run(run())
    # Then it alone is given up, after three deaths
    assert [type(f) for f in found] == [Scores, ScorerRefused, Scores, Scores]
    assert sum(b"POISON" in b for b in bodies) == 3


def test_a_probe_says_why_a_service_cannot_be_used() -> None:
    async def probe(url: str) -> None:
        scorer = HttpScorer(lambda: [url], token="guess", timeout_s=1)
        try:
            await scorer.probe(GROUP)
        finally:
            await scorer.close()

    async def served(answer: bytes) -> None:
        async with serve(says(answer)) as (url, _):
            await probe(url)

    asyncio.run(served(reply(GOOD)))
    asyncio.run(served(reply(b"", "429 Busy")))  # alive: the run waits for it
    with pytest.raises(ConfigError, match="SPPO_SCORER__TOKEN"):
        asyncio.run(served(reply(b"", "401 No")))
    with pytest.raises(ScorerError, match="500: boom"):
        asyncio.run(served(reply(b"boom", "500 Oh")))
    with pytest.raises(ScorerError, match="is the service running"):
        asyncio.run(probe("http://127.0.0.1:1"))
