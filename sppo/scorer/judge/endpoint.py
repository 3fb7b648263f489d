"""One call of an OpenAI-compatible endpoint, and what may come of it.

Nothing that it answers is trusted: it has a deadline for the whole of it, a size, and a form.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from sppo.config import is_loopback
from sppo.errors import ScorerRefused, ScorerSpent
from sppo.scorer.judge.verdicts import Token

LONGEST_REPLY = 4 << 20
"""Bytes."""
CONNECT_S = 10.0
LONGEST_WAIT_S = 3600.0
"""The most of a `Retry-After` that is believed."""
ASIDE_S = 5.0
"""For a look at which models are served."""


class Later(Exception):  # noqa: N818 - not an error
    """The judge is busy: to be asked again after `wait_s` seconds; None where it does not say."""

    def __init__(self, why: str, wait_s: float | None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Unreachable(Exception):  # noqa: N818 - not an error
    """Nothing was sent."""


class Failed(Exception):  # noqa: N818 - may go away
    """No answer that can be used: an error of the endpoint, a deadline, a connection that broke."""


class NotThis(Exception):  # noqa: N818 - what happened
    """The endpoint will not answer this question, or not in this form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A judge's answer as it came."""

    text: str
    tokens: Sequence[Token]
    """Empty where the endpoint gives no log-probs."""
    cut: bool
    """Whether it ended at `max_tokens`."""
    prompt_tokens: int
    answer_tokens: int


class Endpoint:
    """Calls it; one connection pool.

    endpoint = Endpoint("http://127.0.0.1:8000", key="", timeout_s=60, at_once=16)
    reply = await endpoint.complete({"model": "...", "messages": [...]})
    await endpoint.close()
    """

    def __init__(self, url: str, *, key: str, timeout_s: float, at_once: int) -> None:
        self.url = url
        self._base = _base(url)
        self._timeout_s = timeout_s
        host = urlsplit(url).hostname or ""
        self._client = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx.Timeout(None, connect=min(timeout_s, CONNECT_S)),
            limits=httpx.Limits(max_connections=at_once + 1),
            trust_env=not is_loopback(host),  # a proxy has no business on this machine
        )

    async def complete(self, body: Mapping[str, Any]) -> Reply:
        """The answer to one chat.

        Raises Later, Unreachable, Failed or NotThis, see these; ScorerRefused where no question
        would be answered, as the model is not there; ScorerSpent where none will be, as the key is
        refused or the account empty.
        """
        status, headers, content = await self._ask("POST", "/chat/completions", body)
        if status == 200:
            return _reply(content)
        said = f"{self.url} answered {status}: {_words(content)}"
        if status in (401, 403):
            raise ScorerSpent(
                f"scorer.judge.url = {self.url!r} refuses the key ({status}: {_words(content)}); "
                "set SPPO_SCORER__JUDGE__API_KEY"
            )
        if status == 402 or b"insufficient_quota" in content:
            raise ScorerSpent(f"{said}; nothing more is to be had with this key")
        if status in (429, 503):
            raise Later(said, _wait_s(headers))
        if status >= 500 or status == 408:
            raise Failed(said)
        if 300 <= status < 400:
            to = headers.get("Location", "")[:200]
            raise ScorerRefused(
                f"{said}, which sends us to {to!r}: write that into scorer.judge.url"
            )
        if status == 404:
            raise ScorerRefused(
                f"scorer.judge.model = {body.get('model')!r}: {said}; {await self._served()}"
            )
        raise NotThis(said)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _served(self) -> str:
        """Which models there are, for the end of a message."""
        try:
            async with asyncio.timeout(ASIDE_S):
                status, _, content = await self._ask("GET", "/models")
        except (TimeoutError, Later, Unreachable, Failed):
            status, content = 0, b""
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):
            if status == 200 and (names := [str(m["id"]) for m in json.loads(content)["data"]]):
                return f"it serves {', '.join(names[:20])}"
        return f"{self._base}/models names no models; is that the right scorer.judge.url?"

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, httpx.Headers, bytes]:
        url = self._base + path
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, url, json=body) as reply,
            ):
                return reply.status_code, reply.headers, await _body(url, reply)
        except TimeoutError:
            raise Failed(
                f"{url} gave no whole answer within scorer.judge.timeout_s = {self._timeout_s:g}"
            ) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            why = error or type(error).__name__
            raise Unreachable(
                f"scorer.judge.url = {self.url!r} cannot be reached: {why}"
            ) from error
        except httpx.HTTPError as error:
            raise Failed(f"{url}: the connection broke: {error or type(error).__name__}") from error


def _base(url: str) -> str:
    """The address before `/chat/completions`."""
    if url.endswith("/chat/completions"):
        return url.removesuffix("/chat/completions")
    return url if urlsplit(url).path.strip("/") else f"{url}/v1"


def _wait_s(headers: httpx.Headers) -> float | None:
    """`Retry-After`, as seconds or as a date; None without one that can be read."""
    text = headers.get("Retry-After", "")
    with contextlib.suppress(TypeError, ValueError):
        at = text and not text[0].isdigit() and email.utils.parsedate_to_datetime(text)
        wait_s = at.timestamp() - time.time() if at else float(text)
        return min(max(wait_s, 0.0), LONGEST_WAIT_S)
    return None


async def _body(url: str, reply: httpx.Response) -> bytes:
    packed = reply.headers.get("Content-Encoding", "identity").lower()
    if packed not in ("identity", ""):
        raise Failed(f"{url} answered in {packed!r}, which was not asked for")
    body = bytearray()
    async for part in reply.aiter_raw():
        body += part
        if len(body) > LONGEST_REPLY:
            raise Failed(f"{url} answered more than {LONGEST_REPLY >> 20} MiB")
    return bytes(body)


def _reply(content: bytes) -> Reply:
    """Raises Failed unless this is a chat completion."""
    try:
        found = json.loads(content)
        choice = found["choices"][0]
        usage = found.get("usage") or {}
        return Reply(
            text=choice["message"].get("content") or "",
            tokens=[_token(t) for t in (choice.get("logprobs") or {}).get("content") or ()],
            cut=choice.get("finish_reason") == "length",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            answer_tokens=int(usage.get("completion_tokens") or 0),
        )
    except RecursionError:
        raise Failed("the judge answered JSON nested too deeply") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Failed(
            f"the judge's endpoint answered what is no chat completion: {_words(content)!r}"
        ) from error


def _token(entry: Mapping[str, Any]) -> Token:
    top = {str(t["token"]): float(t["logprob"]) for t in entry.get("top_logprobs") or ()}
    return Token(text=str(entry["token"]), top=top | {str(entry["token"]): float(entry["logprob"])})


def _words(content: bytes) -> str:
    """What an answer says: the message of an error object, or its first words."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(content)
        error = found.get("error", found) if isinstance(found, dict) else found
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str):
            return " ".join(message.split())[:400]
    return " ".join(content[:300].decode(errors="replace").split())[:200]
