"""A scorer that asks a service of its own protocol, many groups beside each other:

[scorer]
name = "remote:Remote"
options = { url = "http://127.0.0.1:8000/rate" }
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx


class Remote:
    """Rewards what POST `url` says of {"question": ..., "answer": ...}: {"rating": 0 to 10}."""

    def __init__(self, *, url: str, at_a_time: int = 16) -> None:
        self._url = url
        self._at_a_time = at_a_time

    async def setup(self) -> None:
        self._client = httpx.AsyncClient(timeout=10.0)
        self._turn = asyncio.Semaphore(self._at_a_time)

    async def score(self, request: Any) -> list[float]:
        """An error refuses the group, which is tried again with new completions."""
        asked = (self._rate(request.question, text) for text in request.completions)
        return await asyncio.gather(*asked)

    async def _rate(self, question: str, answer: str) -> float:
        async with self._turn:
            reply = await self._client.post(
                self._url, json={"question": question, "answer": answer}
            )
        reply.raise_for_status()
        return float(reply.json()["rating"]) / 10

    async def close(self) -> None:
        await self._client.aclose()
