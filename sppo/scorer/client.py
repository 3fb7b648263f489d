"""The generator's side of a scorer service: spread over replicas, within one deadline for a group.

A service that cannot be reached, or says that it is busy (429, 503), is no fault of the group: the
request waits, while the lease is renewed. Everything else counts: an answer that is late, too
large, no JSON, or of another form refuses the group; so does an error, after `TRIES`. A connection
that breaks while the group is scored may be the group's doing: it is asked about `TRIES` times, the
last time alone, and then given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import itertools
import json
import logging
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from sppo.errors import ConfigError, ScorerError, ScorerRefused, ScorerSpent
from sppo.scorer.base import checked
from sppo.scorer.calls import to_json
from sppo.types import ScoreRequest, Scores

log = logging.getLogger(__name__)

TRIES = 3
RETRY_S = 1.0
PATIENCE = 8
"""How often `scorer.timeout_s` a group is asked about while the service says that it is busy."""
LONGEST_REPLY = 4 << 20
"""Bytes of a reply, also unpacked: 256 completions compared with each other take 2 MB."""
CONNECT_S = 5.0
IDLE_S = 2.0
"""How long an unused connection is kept: less than a service does, so that it is not closed while
we write to it.
"""
_GZIP_OR_DEFLATE = 47
_NOT_SENT = (
    aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL,
)  # fmt: skip


class _Unreachable(Exception):  # noqa: N818 - not an error
    """Nothing was sent."""


class _Failed(Exception):  # noqa: N818 - may go away
    """The service answered with an error."""


class _Broke(_Failed):
    """The connection broke after the group was sent."""


class _Later(Exception):  # noqa: N818 - not an error
    """The service is busy."""

    def __init__(self, why: str, wait_s: float) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class HttpScorer:
    """See `sppo.scorer.base.Scorer`. `urls` is asked before each request, so replicas may come and
    go.

    `own_s` is how many seconds more a service of ours has: it keeps the deadline itself, and a
    group may have to wait in its queue, or for a model to load; without end where its scorer keeps
    time by itself.
    """

    def __init__(
        self, urls: Callable[[], Sequence[str]], *, token: str, timeout_s: float, own_s: float = 0.0
    ) -> None:
        self._urls = urls
        self._turn = itertools.count()
        self._timeout_s = timeout_s
        self._limit_s = timeout_s + own_s
        self._alone = asyncio.Lock()
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def score(self, request: ScoreRequest) -> Scores:
        """See `Scorer`. Waits while no service can be reached.

        Raises ScorerError when a service does not score the group, ScorerRefused where it never
        would, ConfigError when it refuses the token.
        """
        left_s, failures = self._limit_s, list[_Failed]()
        patience_s = PATIENCE * self._timeout_s if math.isfinite(left_s) else math.inf
        while True:
            url = await self._service(request)
            lane = self._alone if len(failures) == TRIES - 1 else contextlib.nullcontext()
            async with lane:
                begun = time.monotonic()
                try:
                    return await self._ask(url, request, left_s)
                except _Unreachable as error:
                    log.warning("group %s waits: %s", request.uid, error)
                    await asyncio.sleep(RETRY_S)
                    continue
                except _Later as later:
                    patience_s -= later.wait_s
                    if patience_s < 0:
                        waited = f"{PATIENCE * self._timeout_s:g} s ({PATIENCE} x scorer.timeout_s)"
                        raise ScorerError(
                            f"group {request.uid}: {url} has been busy for {waited}: {later}"
                        ) from None
                    await asyncio.sleep(later.wait_s)
                    continue
                except _Failed as error:
                    failures.append(error)
            pause_s = min(RETRY_S * 4 ** (len(failures) - 1), self._timeout_s / 4)
            left_s -= time.monotonic() - begun + pause_s
            if len(failures) == TRIES or left_s <= 0:
                raise _given_up(request, failures)
            await asyncio.sleep(pause_s)

    async def probe(self, request: ScoreRequest) -> Scores | None:
        """Have the service score one group, once; None if it says that it is busy.

        Raises ScorerError or ConfigError saying why it cannot be used.
        """
        try:
            return await self._ask(self._urls()[0], request, self._limit_s)
        except _Unreachable as error:
            raise ScorerError(f"{error}; is the service running?") from error
        except _Failed as error:
            raise ScorerError(str(error)) from error
        except _Later:
            return None

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connections(self) -> aiohttp.ClientSession:
        """As many as there are groups in hand. No proxy of the environment, which is meant for the
        outside, sees them.
        """
        if self._session is None:
            connect_s = min(self._timeout_s, CONNECT_S)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=connect_s, sock_connect=connect_s
                ),
                headers=_headers(self._token), cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )  # fmt: skip
        return self._session

    async def _service(self, request: ScoreRequest) -> str:
        """The next service in turn, once there is one."""
        waits = False
        while not (urls := await asyncio.to_thread(self._urls)):
            if not waits:
                log.warning("group %s waits: no scorer service is alive", request.uid)
            waits = True
            await asyncio.sleep(RETRY_S)
        return urls[next(self._turn) % len(urls)]

    async def _ask(self, url: str, request: ScoreRequest, limit_s: float) -> Scores:
        """What one service answers once; see the classes above and `score` for what it raises."""
        try:
            async with asyncio.timeout(limit_s):
                status, headers, body = await self._post(f"{url}/score", request)
        except _NOT_SENT as error:
            raise _Unreachable(f"{url}: {type(error).__name__}: {error}") from error
        except TimeoutError:
            raise ScorerError(
                f"group {request.uid}: {url} gave no whole answer within scorer.timeout_s = "
                f"{self._timeout_s:g}; raise "
                "it if the service loads its model first"
            ) from None
        except zlib.error as error:
            raise ScorerError(
                f"group {request.uid}: {url} answered what cannot be unpacked: {error}"
            ) from error
        except aiohttp.ClientError as error:
            raise _Broke(
                f"{url}: the connection broke while it scored this group: {error}"
            ) from error
        return _judge(url, request, status, headers, body)

    async def _post(self, url: str, request: ScoreRequest) -> tuple[int, Mapping[str, str], bytes]:
        try:
            body = to_json(_body(request), "the group")
            content = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ScorerRefused(
                f"group {request.uid} cannot be written as JSON: {error}"
            ) from error
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        async with self._connections().post(
            url, data=content, headers=headers, allow_redirects=False
        ) as reply:
            packed = reply.headers.get("Content-Encoding", "identity").lower()
            if packed not in ("identity", "", "gzip", "deflate"):
                raise ScorerError(
                    f"group {request.uid}: {url} answered in {packed!r}, which was not asked for"
                )
            answer = bytearray()
            unpack = zlib.decompressobj(_GZIP_OR_DEFLATE) if packed in ("gzip", "deflate") else None
            async for part in reply.content.iter_any():
                answer += unpack.decompress(part, LONGEST_REPLY + 1) if unpack else part
                if len(answer) > LONGEST_REPLY:
                    raise ScorerError(
                        f"group {request.uid}: {url} answered more than {LONGEST_REPLY >> 20} MiB"
                    )
            return reply.status, reply.headers, bytes(answer)


def _given_up(request: ScoreRequest, failures: Sequence[_Failed]) -> ScorerError:
    words = "; ".join(dict.fromkeys(map(str, failures)))
    if len(failures) == TRIES and all(isinstance(failure, _Broke) for failure in failures):
        return ScorerRefused(f"group {request.uid}: {TRIES} times, the last time alone, {words}")
    return ScorerError(f"group {request.uid}: {words}")


def _judge(
    url: str, request: ScoreRequest, status: int, headers: Mapping[str, str], body: bytes
) -> Scores:
    """The scores in an answer. Raises _Later, _Failed, ScorerError, ScorerRefused or
    ConfigError.
    """
    if status == 200:
        return checked(url, request, _scores(url, request, body))
    said = f"{url} answered {status}: {_words(body)}"
    if status in (401, 403):  # no fault of the group: this role has the wrong token
        raise ConfigError(f"the scorer service at {url} refuses the token; set SPPO_SCORER__TOKEN")
    if status == 402:
        raise ScorerSpent(_words(body))
    if status in (429, 503):
        raise _Later(said, _wait_s(headers))
    if status >= 500 or status == 408:
        raise _Failed(said)
    if 300 <= status < 400:
        to = headers.get("Location", "")
        raise ScorerRefused(
            f"{url} answered {status}, which sends us to {to[:200]!r}: write that into scorer.url"
        )
    again = status == 422 and _again(body)
    raise (ScorerError if again else ScorerRefused)(f"group {request.uid}: {said}")


def _body(request: ScoreRequest) -> dict[str, object]:
    return {
        "uid": request.uid,
        "question": request.question,
        "completions": list(request.completions),
        "data": dict(request.data),
        "messages": [{"role": role, "content": content} for role, content in request.messages],
        "finish_reasons": list(request.finish_reasons),
        "lengths": list(request.lengths),
        "versions": list(request.versions),
    }


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _wait_s(headers: Mapping[str, str]) -> float:
    """Seconds until a busy service wants to be asked again: `Retry-After`, as seconds or as a
    date.
    """
    text = headers.get("Retry-After", "")
    try:
        wait_s = float(text) if not text or text[0].isdigit() else _until(text)
    except (TypeError, ValueError):
        wait_s = RETRY_S
    return min(max(wait_s, RETRY_S / 4), 60.0)


def _until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def _words(body: bytes) -> str:
    """What an answer says: the `detail` of a JSON object, or its first words."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(body)
        if isinstance(found, dict) and isinstance(found.get("detail"), str):
            return str(found["detail"])[:600]
    return " ".join(body[:300].decode(errors="replace").split())


def _again(body: bytes) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(body)
        return isinstance(found, dict) and found.get("again") is True
    return False


def _scores(url: str, request: ScoreRequest, body: bytes) -> Any:
    """What the reply holds. Raises ScorerError when it is not of the protocol's form."""
    where = f"group {request.uid}: {url} answered"
    try:
        found = json.loads(body)
    except RecursionError:
        raise ScorerError(f"{where} JSON nested too deeply") from None
    except ValueError as error:
        raise ScorerError(
            f"{where} something that is not JSON ({error}): {_words(body[:100])}"
        ) from error
    if not isinstance(found, dict):
        raise ScorerError(f"{where} no JSON object: {_words(body[:100])}")
    given = {k: found[k] for k in ("rewards", "preferences") if found.get(k) is not None}
    if len(given) != 1:
        raise ScorerError(
            f"{where} without rewards or preferences, or with both: {_words(body[:100])}"
        )
    ((key, value),) = given.items()
    rows = value if isinstance(value, list) else None
    if rows is None or not all(
        _is_number(x) or (isinstance(x, list) and all(y is None or _is_number(y) for y in x))
        for x in rows
    ):
        raise ScorerError(f"{where} {key} that are not JSON numbers: {_words(body[:100])}")
    if (key == "preferences") != any(isinstance(x, list) for x in rows):
        raise ScorerError(f"{where} {key} of the wrong form: {_words(body[:100])}")
    return {key: rows, "details": found.get("details")}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
