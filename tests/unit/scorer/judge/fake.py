"""An OpenAI-compatible endpoint on a real socket, which answers as a test tells it to."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Handler = Callable[[asyncio.StreamWriter, dict[str, Any], int], Awaitable[None]]


@dataclass
class Fake:
    """Where it is, and what it has got."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Of the chats, as JSON."""
    keys: list[str] = field(default_factory=list)
    """`Authorization` of each."""
    in_hand: int = 0
    most_at_once: int = 0


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def error(status: str, message: str, *headers: str) -> bytes:
    return http(json.dumps({"error": {"message": message}}).encode(), status, *headers)


def chat(text: str, top: Mapping[str, float] | None = None, finish: str = "stop") -> bytes:
    """An answer; with `top`, probabilities of the tokens in its first place."""
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text},
    }
    if top is not None:
        entries = [{"token": token, "logprob": math.log(p)} for token, p in top.items()]
        said = {"token": text, "logprob": math.log(top.get(text, 1e-9))}
        choice["logprobs"] = {"content": [said | {"top_logprobs": entries}]}
    usage = {"prompt_tokens": 100, "completion_tokens": 1}
    return http(json.dumps({"choices": [choice], "usage": usage}).encode())


def says(*replies: bytes) -> Handler:
    """Each in turn, then the last."""

    async def handle(writer: asyncio.StreamWriter, _: dict[str, Any], number: int) -> None:
        writer.write(replies[min(number, len(replies) - 1)])

    return handle


def prompt(body: Mapping[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def answers(body: Mapping[str, Any]) -> tuple[str, str]:
    """The two texts that our rubric shows."""
    _, _, rest = prompt(body).partition("[Answer A]\n")
    first, _, rest = rest.partition("\n\n[Answer B]\n")
    return first, rest.partition("\n\n[End]")[0]


def longer(body: Mapping[str, Any]) -> str:
    """A judge that prefers the longer."""
    first, second = map(len, answers(body))
    return "A" if first > second else "B" if first < second else "C"


def judges(verdict: Callable[[Mapping[str, Any]], str], delay_s: float = 0.0) -> Handler:
    async def handle(writer: asyncio.StreamWriter, body: dict[str, Any], _: int) -> None:
        await asyncio.sleep(delay_s)
        writer.write(chat(verdict(body)))

    return handle


@asynccontextmanager
async def serve(handler: Handler, models: bytes = b"") -> AsyncIterator[Fake]:
    fake = Fake(url="")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(models or http(b"nothing here", "404 Not Found"))
                return
            lines = head.decode().split("\r\n")
            named = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
            body = json.loads(await reader.readexactly(int(named["content-length"])))
            fake.bodies.append(body)
            fake.keys.append(named.get("authorization", ""))
            fake.in_hand += 1
            fake.most_at_once = max(fake.most_at_once, fake.in_hand)
            try:
                await handler(writer, body, len(fake.bodies) - 1)
                await writer.drain()
            finally:
                fake.in_hand -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.close()
