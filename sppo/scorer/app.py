"""What a scorer's service answers, path by path, with an OpenAPI description at /openapi.json, so
that one can be written in any language.

    POST /score    {"uid": "...", "question": "...", "completions": ["..."], "data": {...}}
                   ->  {"rewards": [1.0]}  or  {"preferences": [[0.5, 1.0], [0.0, 0.5]]}, with null
                   for what was not compared; either may have {"details": [{...}]}
    GET  /healthz  {"scorer": "last-number", "scored": 12, "in_hand": 0, ...}
    GET  /metrics  the same and more, for Prometheus

A group that cannot be scored is answered 422 with {"detail": "why", "again": true}; without `again`
its ticket is given up, as it is for every other 4xx. 402 ends the run, with a checkpoint: nothing
more will be scored. 429 means later, after the seconds of
`Retry-After`: it comes when `QUEUE` requests are in hand or a group's turn has not come in
`scorer.timeout_s`. /healthz answers 503 when a rule does not return. With a token, requests carry
`Authorization: Bearer <token>`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field, model_validator

from sppo.errors import (
    ConfigError,
    RoleDiedError,
    ScorerBusy,
    ScorerError,
    ScorerRefused,
    ScorerSpent,
)
from sppo.faults import point
from sppo.limits import MAX_COMPLETIONS
from sppo.scorer.base import InlineScorer
from sppo.scorer.calls import to_json
from sppo.scorer.meter import Meter
from sppo.types import ScoreRequest, Scores

QUEUE = 1024
"""Requests in hand beyond which others are told to come later."""
LONGEST_BODY = 32 << 20
"""Bytes of a request."""
LATER_S = 1
_BEARER = HTTPBearer(auto_error=False)
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Message(BaseModel):
    """One message of the prompt."""

    role: str
    content: str


class ScoreBody(BaseModel):
    """One group to score; what is said of each completion stands in their order."""

    uid: str = Field(description="Names the group, for messages.")
    question: str = Field(description="The last user message.")
    completions: list[str] = Field(min_length=1, max_length=MAX_COMPLETIONS)
    data: dict[str, Any] = Field(description="The row of the data.")
    messages: list[Message] = Field([], description="The whole prompt.")
    finish_reasons: list[str] = Field([], description="`stop`, or `length` for one that was cut.")
    lengths: list[int] = Field([], description="Tokens of each completion.")
    versions: list[str] = Field([], description="What sampled the last token of each.")

    @model_validator(mode="after")
    def _one_each(self) -> ScoreBody:
        for name in ("finish_reasons", "lengths", "versions"):
            n, k = len(getattr(self, name)), len(self.completions)
            if n not in (0, k):
                raise ValueError(f"{name} has {n} entries for {k} completions")
        return self

    def request(self) -> ScoreRequest:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        messages = tuple((message.role, message.content) for message in self.messages)
        return ScoreRequest(**{**fields, "messages": messages})


class ScoreReply(BaseModel):
    """One of the two: a number for each completion, or the win probability of each (row) over each
    (column), null where they were not compared. `details` has an object for each completion.
    """

    rewards: list[float] | None = None
    preferences: list[list[float | None]] | None = None
    details: list[dict[str, Any]] | None = None


class Refusal(BaseModel):
    """Why a request was not answered."""

    detail: str
    again: bool = Field(False, description="Whether other completions might be scored.")


class Health(BaseModel):
    """What the service has done."""

    scorer: str
    scored: int
    in_hand: int
    busy_s: float
    ready_s: float


class Ascii(JSONResponse):
    """JSON that holds any text: also one that UTF-8 does not."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


_REFUSAL = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
_STRANGER: dict[int | str, dict[str, Any]] = {401: {"content": _REFUSAL, "description": "No token"}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    **_STRANGER,
    400: {"model": Refusal, "description": "The body is no JSON"},
    402: {"model": Refusal, "description": "The scorer will score nothing more"},
    413: {"model": Refusal, "description": f"More than {LONGEST_BODY >> 20} MiB"},
    422: {"model": Refusal, "description": "The group cannot be scored"},
    429: {
        "model": Refusal,
        "description": "Later",
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}},
    },
}


def build(scorer: InlineScorer, meter: Meter, token: str, *, timeout_s: float) -> FastAPI:
    """The application that has `scorer` score."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        scorer.warm()
        yield
        await scorer.close()

    what = f"Scores the completions of one prompt with {scorer.name}."
    app = FastAPI(title="sppo scorer", description=what, lifespan=life)
    app.add_middleware(BodyLimit, most=LONGEST_BODY)
    app.add_exception_handler(RequestValidationError, _unfit)
    known = [Depends(_authoriser(token))]

    @app.post("/score", dependencies=known, response_model=ScoreReply, responses=_REFUSALS)
    async def score(body: ScoreBody) -> Response:
        """Score one group."""
        point("scorer.received")
        if meter.in_hand >= QUEUE:
            meter.count("later")
            return _later(f"{QUEUE} groups are in hand")
        with meter.group():
            outcome, answer = await _score(scorer, body.request(), timeout_s)
            meter.count(outcome)
            return answer

    @app.get("/healthz", dependencies=known, responses=_STRANGER | {503: {"model": Refusal}})
    async def healthz() -> Health:
        """Whether it scores."""
        if scorer.stuck:
            raise HTTPException(503, f"{scorer.stuck} calls of {scorer.name} do not return")
        return Health.model_validate(meter.health(scorer.name))

    @app.get("/metrics", dependencies=known, responses=_STRANGER, response_class=PlainTextResponse)
    async def metrics() -> str:
        """What it has done, as Prometheus reads it."""
        return meter.text(scorer.counters)

    return app


async def _score(
    scorer: InlineScorer, request: ScoreRequest, timeout_s: float
) -> tuple[str, Response]:
    """What became of a group (see `meter.OUTCOMES`), and the answer."""
    try:
        scores = await scorer.score(request, turn_s=timeout_s)
        point("scorer.scored")
        return "scored", Ascii(_reply(scores))
    except ScorerBusy as error:
        return "later", _later(str(error))
    except ScorerSpent as error:
        return "refused", Ascii({"detail": str(error)}, 402)
    except (ScorerRefused, ConfigError, RoleDiedError) as error:
        return "refused", Ascii({"detail": str(error)}, 422)
    except ScorerError as error:
        return "refused", Ascii({"detail": str(error), "again": True}, 422)


def _reply(scores: Scores) -> dict[str, Any]:
    """The scores as JSON, without what is not there."""
    found = {"rewards": scores.rewards, "preferences": scores.preferences}
    return {
        name: to_json(value, name)
        for name, value in {**found, "details": scores.details}.items()
        if value is not None
    }


def _later(why: str) -> Response:
    return Ascii({"detail": why}, 429, headers={"Retry-After": str(LATER_S)})


async def _unfit(_: Any, error: Exception) -> Response:
    """A body of another form, in one line; what was sent is not sent back."""
    assert isinstance(error, RequestValidationError)
    told = [
        f"{'.'.join(map(str, each['loc'][1:])) or 'body'}: {each['msg']}" for each in error.errors()
    ]
    return Ascii({"detail": "; ".join(told)[:2000]}, 422)


def _authoriser(token: str) -> Callable[..., Awaitable[None]]:
    """A dependency of each path that refuses who does not bring the token, if there is one."""

    async def authorise(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> None:
        if token and (
            given is None or not hmac.compare_digest(given.credentials.encode(), token.encode())
        ):
            raise HTTPException(
                401, "missing or wrong bearer token", headers={"WWW-Authenticate": "Bearer"}
            )

    return authorise


class BodyLimit:
    """An application that is given whole bodies of at most `most` bytes; a longer one is read to
    its end, forgotten and answered 413.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, size, more = bytearray(), 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the caller has gone
                return
            size += len(message.get("body", b""))
            if size <= self._most:
                body += message.get("body", b"")
            more = message.get("more_body", False)
        if size > self._most:
            said = Refusal(detail=f"{size} bytes; at most {self._most} are taken")
            await Ascii(said.model_dump(), 413)(scope, receive, send)
            return
        whole = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def once() -> MutableMapping[str, Any]:
            return whole.pop() if whole else await receive()

        await self._app(scope, once, send)
