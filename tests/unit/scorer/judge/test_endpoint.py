"""One call: every way in which an endpoint answers, or does not."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import time
from collections.abc import Awaitable, Callable

import pytest

from sppo.errors import ScorerRefused, ScorerSpent
from sppo.scorer.judge import endpoint
from sppo.scorer.judge.endpoint import Endpoint, Failed, Later, NotThis, Reply, Unreachable
from tests.unit.scorer.judge.fake import Fake, Handler, chat, error, http, says, serve

BODY = {"model": "m", "messages": [{"role": "user", "content": "?"}]}


def ask(
    handler: Handler, *, path: str = "", key: str = "", timeout_s: float = 5.0, models: bytes = b""
) -> tuple[Reply | BaseException, Fake]:
    async def go() -> tuple[Reply | BaseException, Fake]:
        async with serve(handler, models) as fake:
            one = Endpoint(fake.url + path, key=key, timeout_s=timeout_s, at_once=4)
            try:
                return await one.complete(BODY), fake
            except Exception as error:  # noqa: BLE001 - it is what is looked at
                return error, fake
            finally:
                await one.close()

    return asyncio.run(go())


@pytest.mark.parametrize("path", ["", "/v1", "/v1/chat/completions", "/api/x"])
def test_an_answer_is_read(path: str) -> None:
    found, fake = ask(says(chat("A", {"A": 0.75, "B": 0.25})), path=path, key="secret")
    assert isinstance(found, Reply)
    assert (found.text, found.prompt_tokens, found.answer_tokens, found.cut) == ("A", 100, 1, False)
    assert found.tokens[0].top.keys() == {"A", "B"}
    assert fake.bodies == [BODY]
    assert fake.keys == ["Bearer secret"]


def test_an_answer_may_hold_no_log_probs_no_usage_and_no_text() -> None:
    found, _ = ask(says(http(b'{"choices": [{"message": {"content": null}, "logprobs": null}]}')))
    assert found == Reply(text="", tokens=[], cut=False, prompt_tokens=0, answer_tokens=0)


@pytest.mark.parametrize(
    "body",
    [b"<html>gateway</html>", b"{}", b"[]", b"null", b'{"choices": []}', b'{"choices": [{}]}',
     b'{"choices": [{"message": "A"}]}', b'{"choices": ' + b"[" * 100_000, b"\xff",
     b'{"choices": [{"message": {"content": "A"}, "logprobs": {"content": [{"token": "A"}]}}]}'],
)  # fmt: skip
def test_what_is_no_chat_completion_has_failed(body: bytes) -> None:
    found, _ = ask(says(http(body)))
    assert isinstance(found, Failed), found
    assert len(str(found)) < 400


async def cut_off(writer: asyncio.StreamWriter, _: object, __: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")


async def closes(writer: asyncio.StreamWriter, _: object, __: int) -> None:
    pass


async def silent(writer: asyncio.StreamWriter, _: object, __: int) -> None:
    await asyncio.sleep(5)


async def drips(writer: asyncio.StreamWriter, _: object, __: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await asyncio.sleep(0.01)


async def endless(writer: asyncio.StreamWriter, _: object, __: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" " * 65536)
        await writer.drain()


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (cut_off, "connection broke"),
        (closes, "connection broke"),
        (silent, "no whole answer within scorer.judge.timeout_s = 0.1"),
        (drips, "no whole answer within scorer.judge.timeout_s"),
        (endless, "answered more than 0 MiB"),
        (says(http(gzip.compress(b"{}"), "200 OK", "Content-Encoding: gzip")), "'gzip'"),
        (says(http(b"boom", "500 Internal Server Error")), "answered 500: boom"),
    ],
)
def test_an_endpoint_that_breaks_has_failed(
    handler: Callable[..., Awaitable[None]], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "LONGEST_REPLY", 1 << 18)
    found, _ = ask(handler, timeout_s=0.1 if "timeout_s" in words else 10.0)
    assert isinstance(found, Failed), found
    assert words in str(found)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_busy_is_later_and_says_when(status: str) -> None:
    def wait_s(*headers: str) -> float | None:
        found, _ = ask(says(error(status, "slow down", *headers)))
        assert isinstance(found, Later), found
        assert "slow down" in str(found)
        return found.wait_s

    assert wait_s() is None
    assert wait_s("Retry-After: 7") == 7.0
    assert wait_s("Retry-After: soon") is None
    assert wait_s("Retry-After: 1e99") == endpoint.LONGEST_WAIT_S
    at = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert wait_s(f"Retry-After: {at}") == pytest.approx(30, abs=3)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error("401 Unauthorized", "bad key"), "SPPO_SCORER__JUDGE__API_KEY"),
        (error("403 Forbidden", "not yours"), "SPPO_SCORER__JUDGE__API_KEY"),
        (error("402 Payment Required", "top up"), "top up"),
        (
            http(b'{"error": {"message": "quota", "code": "insufficient_quota"}}', "429 Too Many"),
            "nothing more is to be had",
        ),
    ],
)
def test_a_key_that_is_refused_or_empty_ends_it(reply: bytes, words: str) -> None:
    found, _ = ask(says(reply))
    assert isinstance(found, ScorerSpent), found
    assert words in str(found)
    assert "secret" not in str(found)


def test_a_model_that_is_not_served_is_named_with_those_that_are() -> None:
    models = http(b'{"data": [{"id": "small"}, {"id": "large"}]}')
    found, fake = ask(says(error("404 Not Found", "no such model")), models=models)
    assert isinstance(found, ScorerRefused)
    for words in ("scorer.judge.model = 'm'", fake.url, "no such model", "serves small, large"):
        assert words in str(found)
    found, _ = ask(says(http(b"<html>", "404 Not Found")))
    assert "is that the right scorer.judge.url?" in str(found)


def test_a_redirect_is_not_followed() -> None:
    found, _ = ask(says(http(b"", "307 Temporary Redirect", "Location: https://there/v1")))
    assert isinstance(found, ScorerRefused)
    assert "'https://there/v1': write that into scorer.judge.url" in str(found)


def test_a_question_that_is_refused_is_told_apart() -> None:
    found, _ = ask(says(error("400 Bad Request", "the prompt is too long")))
    assert isinstance(found, NotThis)
    assert "400: the prompt is too long" in str(found)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_an_endpoint_that_is_not_there_has_got_nothing(url: str) -> None:
    async def go() -> None:
        one = Endpoint(url, key="", timeout_s=2.0, at_once=1)
        with pytest.raises(Unreachable, match=r"scorer\.judge\.url = '.*cannot be reached"):
            await one.complete(BODY)
        await one.close()

    asyncio.run(go())
