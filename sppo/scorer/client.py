"""The generator's side of a scorer service: spread over replicas, each try with a deadline.

A service that cannot be reached is no fault of the group: the request waits for one, while the lease is renewed. A
service that answers with an error refuses the group.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence

import httpx

from sppo.errors import ScorerError
from sppo.scorer.base import checked
from sppo.types import ScoreRequest

log = logging.getLogger(__name__)

TRIES = 3
RETRY_S = 1.0


class HttpScorer:
    """See `sppo.scorer.base.Scorer`. `urls` is asked before each request, so replicas may come and go."""

    def __init__(self, urls: Callable[[], Sequence[str]], *, token: str, timeout_s: float) -> None:
        self._urls = urls
        self._turn = itertools.count()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # trust_env off: a proxy meant for the outside must not see requests to our own services.
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout_s, trust_env=False)

    async def score(self, request: ScoreRequest) -> list[float]:
        """See `Scorer`. Raises ScorerError when a service refuses the group; waits while none can be reached."""
        body = {
            "uid": request.uid,
            "question": request.question,
            "completions": list(request.completions),
            "data": dict(request.data),
        }
        refusals: list[str] = []
        while len(refusals) < TRIES:
            urls = self._urls()
            if not urls:
                log.warning("group %s waits: no scorer service is alive", request.uid)
                await asyncio.sleep(RETRY_S)
                continue
            url = urls[next(self._turn) % len(urls)]
            try:
                reply = await self._client.post(f"{url}/score", json=body)
            except httpx.HTTPError as error:
                log.warning("group %s waits: %s: %s %s", request.uid, url, type(error).__name__, error)
                await asyncio.sleep(RETRY_S)
                continue
            if reply.status_code == 200:
                return checked(url, request, reply.json().get("rewards"))
            refusals.append(f"{url} answered {reply.status_code}: {reply.text[:300]}")
            if reply.status_code < 500:
                break  # asking again changes nothing
        raise ScorerError(f"group {request.uid}: " + "; ".join(refusals))

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()
