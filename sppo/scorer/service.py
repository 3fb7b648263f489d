"""A scorer behind HTTP, with an OpenAPI description at /openapi.json, so that one can be written in any language.

    POST /score   {"uid": "...", "question": "...", "completions": ["..."], "data": {...}}
                  ->  {"rewards": [1.0]}  or  {"preferences": [[0.5, 1.0], [0.0, 0.5]]}
    GET  /health  {"scorer": "last-number", "scored": 12, "busy_s": 0.01, "ready_s": 3.2}

With a token, requests carry `Authorization: Bearer <token>`. Beyond loopback a token is required.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import threading
import time
from dataclasses import asdict
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from sppo.errors import ConfigError, ScorerError
from sppo.faults import point
from sppo.scorer.base import InlineScorer
from sppo.types import ScoreRequest

START_TIMEOUT_S = 20.0
_BEARER = HTTPBearer(auto_error=False)


class ScoreBody(BaseModel):
    """One group to score."""

    uid: str
    question: str
    completions: list[str]
    data: dict[str, Any]


class ScoreReply(BaseModel):
    """One of the two: a number for each completion, or the win probability of each (row) over each (column)."""

    rewards: list[float] | None = None
    preferences: list[list[float]] | None = None


class Usage:
    """What the service has done so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self.scored = 0
        self.busy_s = 0.0

    @property
    def ready_s(self) -> float:
        """Seconds since the service was made."""
        return time.monotonic() - self._started

    def add(self, seconds: float) -> None:
        """Count one group."""
        with self._lock:
            self.scored += 1
            self.busy_s += seconds


def build(name: str, token: str, usage: Usage) -> FastAPI:
    """The application for scorer `name`. Raises ConfigError for an unknown one."""
    scorer = InlineScorer(name)
    app = FastAPI(title="sppo scorer", description=f"Scores the completions of one prompt with {name}.")

    def authorise(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        if token and (given is None or not hmac.compare_digest(given.credentials.encode(), token.encode())):
            raise HTTPException(401, "missing or wrong bearer token")

    @app.post("/score", dependencies=[Depends(authorise)], response_model_exclude_none=True)
    def score(body: ScoreBody) -> ScoreReply:
        point("scorer.received")
        started = time.monotonic()
        request = ScoreRequest(uid=body.uid, question=body.question, completions=body.completions, data=body.data)
        try:
            scores = scorer.score_now(request)
            point("scorer.scored")
            return ScoreReply(**{k: v.tolist() for k, v in asdict(scores).items() if v is not None})
        except ScorerError as error:
            raise HTTPException(422, str(error)) from error
        finally:
            usage.add(time.monotonic() - started)

    @app.get("/health", dependencies=[Depends(authorise)])
    def health() -> dict[str, Any]:
        return {"scorer": name, "scored": usage.scored, "busy_s": usage.busy_s, "ready_s": usage.ready_s}

    return app


class Service:
    """The application on a socket, served from a thread.

    service = Service("last-number", token="...", host="127.0.0.1")
    service.start()          # service.url is then known
    ...
    service.stop()
    """

    def __init__(self, name: str, *, token: str, host: str = "127.0.0.1", port: int = 0) -> None:
        if not token and not ipaddress.ip_address(socket.gethostbyname(host)).is_loopback:
            raise ConfigError(f"scorer host {host!r} is reachable from other machines: set SPPO_SCORER__TOKEN")
        self.usage = Usage()
        self._server = uvicorn.Server(
            uvicorn.Config(build(name, token, self.usage), log_level="warning", access_log=False)
        )
        self._socket = socket.create_server((host, port))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True, name="scorer-http"
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
    def alive(self) -> bool:
        """Whether requests are still being served."""
        return self._thread.is_alive()

    def answers(self) -> bool:
        """Whether a request is answered within a second: a scorer that keeps every thread busy for ever does not."""
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
