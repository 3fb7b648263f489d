"""A scorer behind HTTP, with an OpenAPI description at /openapi.json, so that one can be written in
any language.

    POST /score   {"uid": "...", "question": "...", "completions": ["..."], "data": {...}}
                  ->  {"rewards": [1.0]}  or  {"preferences": [[0.5, 1.0], [0.0, 0.5]]}, with null
                  for what was not compared; either may have {"details": [{...}]}
    GET  /health  {"scorer": "last-number", "scored": 12, "busy_s": 0.01, "ready_s": 3.2}

A group that cannot be scored is answered 422 with {"detail": "why", "again": true}; without `again`
its ticket is given up, as it is for every other 4xx. 429 and 503 mean later, after the seconds of
`Retry-After`: of ours it comes when `QUEUE` requests are in hand or a group's turn has not come in
`scorer.timeout_s`. /health answers 503 when a rule does not return. With a token, requests carry
`Authorization: Bearer <token>`. Beyond loopback a token is required.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from sppo.errors import (
    ConfigError,
    RoleDiedError,
    ScorerBusy,
    ScorerError,
    ScorerRefused,
    SppoError,
)
from sppo.faults import point
from sppo.metrics import BusyClock
from sppo.scorer.base import InlineScorer
from sppo.scorer.calls import to_json
from sppo.types import ScoreRequest, Scores

START_TIMEOUT_S = 20.0
QUEUE = 1024
"""Requests in hand beyond which others are told to come later."""
_BEARER = HTTPBearer(auto_error=False)


class Message(BaseModel):
    """One message of the prompt."""

    role: str
    content: str


class ScoreBody(BaseModel):
    """One group to score; see `sppo.types.ScoreRequest`."""

    uid: str
    question: str
    completions: list[str]
    data: dict[str, Any]
    messages: list[Message] = []
    finish_reasons: list[str] = []
    lengths: list[int] = []
    versions: list[str] = []

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


def build(
    name: str,
    token: str,
    clock: BusyClock,
    *,
    options: Mapping[str, Any] | None = None,
    timeout_s: float,
) -> FastAPI:
    """The application for scorer `name`; it keeps `state.scorer` and `state.scored`.

    Raises ConfigError for an unknown name or option.
    """
    scorer = InlineScorer(name, options=options, timeout_s=timeout_s)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        scorer.warm()
        yield
        await scorer.close()

    what = f"Scores the completions of one prompt with {name}."
    app = FastAPI(title="sppo scorer", description=what, lifespan=life)
    app.state.scorer, app.state.scored, app.state.in_hand = scorer, 0, 0

    authorise = _authoriser(token)

    @app.post("/score", dependencies=[Depends(authorise)], response_model=ScoreReply)
    async def score(body: ScoreBody) -> Response:
        point("scorer.received")
        if app.state.in_hand >= QUEUE:
            return _later(f"{QUEUE} groups are in hand")
        app.state.in_hand += 1
        try:
            with clock.work():
                scores = await scorer.score(body.request(), turn_s=timeout_s)
            point("scorer.scored")
            return JSONResponse(_reply(scores))
        except ScorerBusy as error:
            return _later(str(error))
        except (ScorerRefused, ConfigError, RoleDiedError) as error:
            return JSONResponse({"detail": str(error)}, 422)
        except ScorerError as error:
            return JSONResponse({"detail": str(error), "again": True}, 422)
        finally:
            app.state.in_hand -= 1
            app.state.scored += 1

    @app.get("/health", dependencies=[Depends(authorise)])
    async def health() -> dict[str, Any]:
        if scorer.stuck:
            raise HTTPException(503, f"{scorer.stuck} calls of {name} do not return")
        return {
            "scorer": name,
            "scored": app.state.scored,
            "busy_s": clock.busy_s,
            "ready_s": clock.ready_s,
        }

    return app


def _reply(scores: Scores) -> dict[str, Any]:
    """The scores as JSON, without what is not there."""
    found = {"rewards": scores.rewards, "preferences": scores.preferences}
    return {
        name: to_json(value, name)
        for name, value in {**found, "details": scores.details}.items()
        if value is not None
    }


def _authoriser(token: str) -> Callable[..., None]:
    """A dependency of each path that refuses who does not bring the token, if there is one."""

    def authorise(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        if token and (
            given is None or not hmac.compare_digest(given.credentials.encode(), token.encode())
        ):
            raise HTTPException(401, "missing or wrong bearer token")

    return authorise


def _later(why: str) -> JSONResponse:
    return JSONResponse({"detail": why}, 503, headers={"Retry-After": "1"})


class Service:
    """The application on a socket, served from a thread.

    service = Service("last-number", token="...", host="127.0.0.1")
    service.start()          # service.url is then known
    ...
    service.stop()
    """

    def __init__(
        self,
        name: str,
        *,
        options: Mapping[str, Any] | None = None,
        token: str,
        host: str = "127.0.0.1",
        port: int = 0,
        timeout_s: float = 30.0,
    ) -> None:
        if not token and not ipaddress.ip_address(socket.gethostbyname(host)).is_loopback:
            raise ConfigError(
                f"scorer host {host!r} is reachable from other machines: set SPPO_SCORER__TOKEN"
            )
        self.clock = BusyClock()
        self._app = build(name, token, self.clock, options=options, timeout_s=timeout_s)
        self._server = uvicorn.Server(
            uvicorn.Config(self._app, log_level="warning", access_log=False)
        )
        self._socket = socket.create_server((host, port))
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._socket]},
            daemon=True,
            name="scorer-http",
        )
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._probe = httpx.Client(headers=headers, timeout=1.0, trust_env=False)

    def start(self) -> None:
        """Serve. Raises ScorerError if the service does not come up."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ScorerError(f"the scorer service at {self.url} did not start; see its log")
            time.sleep(0.01)

    @property
    def scored(self) -> int:
        """Requests that have been answered."""
        return int(self._app.state.scored)

    @property
    def fault(self) -> SppoError | None:
        """Why this service can score no more, such as a user's module that cannot be imported; or
        None.
        """
        fault: SppoError | None = self._app.state.scorer.fault
        return fault

    @property
    def alive(self) -> bool:
        """Whether requests are still being served."""
        return self._thread.is_alive()

    def answers(self) -> bool:
        """Whether /health says within a second that all is well: it does not while a rule never
        returns.
        """
        try:
            reply = self._probe.get(f"{self.url}/health")
        except httpx.HTTPError:
            return False
        return reply.status_code == 200

    def stop(self) -> None:
        """Finish open requests and stop."""
        self._probe.close()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()
