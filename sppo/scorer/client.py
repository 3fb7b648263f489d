"""The generator's side of a scorer service: spread over replicas, each try with a deadline.

A service that cannot be reached is no fault of the group: the request waits for one, while the lease is renewed. A
service that answers with an error, or takes longer than the deadline over a group, refuses it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence

import httpx

from sppo.errors import ConfigError, ScorerError
from sppo.scorer.base import checked
from sppo.types import ScoreRequest, Scores

log = logging.getLogger(__name__)

TRIES = 3
RETRY_S = 1.0


class HttpScorer:
    """See `sppo.scorer.base.Scorer`. `urls` is asked before each request, so replicas may come and go."""

    def __init__(self, urls: Callable[[], Sequence[str]], *, token: str, timeout_s: float) -> None:
        self._urls = urls
        self._turn = itertools.count()
        self._timeout_s = timeout_s
        # trust_env off: a proxy meant for the outside must not see requests to our own services.
        self._client = httpx.AsyncClient(headers=_headers(token), timeout=timeout_s, trust_env=False)

    async def score(self, request: ScoreRequest) -> Scores:
        """See `Scorer`. Raises ScorerError when a service refuses the group; waits while none can be reached.

        Raises ConfigError when a service refuses the token.
        """
        body = _body(request)
        refusals: list[str] = []
        while len(refusals) < TRIES:
            urls = await asyncio.to_thread(self._urls)
            if not urls:
                log.warning("group %s waits: no scorer service is alive", request.uid)
                await asyncio.sleep(RETRY_S)
                continue
            url = urls[next(self._turn) % len(urls)]
            try:
                reply = await self._client.post(f"{url}/score", json=body)
            except httpx.ReadTimeout:
                refusals.append(f"{url} gave no answer within scorer.timeout_s = {self._timeout_s:.0f}")
                continue
            except httpx.HTTPError as error:
                log.warning("group %s waits: %s: %s %s", request.uid, url, type(error).__name__, error)
                await asyncio.sleep(RETRY_S)
                continue
            if reply.status_code == 200:
                return checked(url, request, _scores(url, reply))
            if reply.status_code in (401, 403):  # no fault of the group: this role has the wrong token
                raise ConfigError(f"the scorer service at {url} refuses the token; set SPPO_SCORER__TOKEN")
            refusals.append(f"{url} answered {reply.status_code}: {reply.text[:300]}")
            if reply.status_code < 500:
                break  # asking again changes nothing
            await asyncio.sleep(RETRY_S)
        raise ScorerError(f"group {request.uid}: " + "; ".join(refusals))

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()


def probe(url: str, request: ScoreRequest, *, token: str, timeout_s: float) -> Scores:
    """Have a service score one group, once. Raises ScorerError saying why it cannot be used."""
    try:
        reply = httpx.post(
            f"{url}/score", json=_body(request), headers=_headers(token), timeout=timeout_s, trust_env=False
        )
    except httpx.ReadTimeout as error:
        raise ScorerError(
            f"no answer within scorer.timeout_s = {timeout_s:.0f}; raise it if the service loads its model first"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ScorerError(f"{type(error).__name__}: {error}; is the service running?") from error
    if reply.status_code == 401:
        raise ScorerError("the service refuses the token; set SPPO_SCORER__TOKEN")
    if reply.status_code != 200:
        raise ScorerError(f"the service answered {reply.status_code}: {reply.text[:300]}")
    return checked(url, request, _scores(url, reply))


def _body(request: ScoreRequest) -> dict[str, object]:
    return {
        "uid": request.uid,
        "question": request.question,
        "completions": list(request.completions),
        "data": dict(request.data),
    }


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _scores(url: str, reply: httpx.Response) -> object:
    """What the reply holds. Raises ScorerError when it is not of the protocol's form."""
    try:
        body = reply.json()
    except ValueError as error:
        raise ScorerError(f"{url} answered something that is not JSON: {reply.text[:100]}") from error
    found = [body[k] for k in ("rewards", "preferences") if isinstance(body, dict) and body.get(k) is not None]
    if len(found) != 1:
        raise ScorerError(f"{url} answered without rewards or preferences, or with both: {reply.text[:100]}")
    return found[0]
