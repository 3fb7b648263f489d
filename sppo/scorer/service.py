"""A scorer behind HTTP, on a socket, served from a thread (what it answers: `sppo.scorer.app`).

Beyond loopback a token is required.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx
import uvicorn

from sppo.errors import ConfigError, ScorerError, SppoError
from sppo.metrics import BusyClock
from sppo.scorer.app import build
from sppo.scorer.base import InlineScorer
from sppo.scorer.meter import Meter

START_TIMEOUT_S = 20.0


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
        self._meter = Meter(self.clock)
        self._scorer = InlineScorer(name, options=options, timeout_s=timeout_s)
        app = build(self._scorer, self._meter, token, timeout_s=timeout_s)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        self._socket = _listen(host, port)
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
        return self._meter.answered

    @property
    def counters(self) -> dict[str, float]:
        """What its scorer counts itself."""
        return self._scorer.counters

    @property
    def fault(self) -> SppoError | None:
        """Why this service can score no more, such as a user's module that cannot be imported; or
        None.
        """
        return self._scorer.fault

    @property
    def alive(self) -> bool:
        """Whether requests are still being served."""
        return self._thread.is_alive()

    def answers(self) -> bool:
        """Whether /healthz says within a second that all is well: it does not while a rule never
        returns.
        """
        try:
            reply = self._probe.get(f"{self.url}/healthz")
        except httpx.HTTPError:
            return False
        return reply.status_code == 200

    def stop(self) -> None:
        """Finish open requests and stop."""
        self._probe.close()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    """Raises ConfigError for an address or a port that this machine does not have to give."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(
            f"scorer.host = {host!r}, scorer.port = {port}: {socket.gethostname()} cannot listen "
            f"there: {error.strerror or error}; 'auto' takes each machine's own address, port 0 a "
            "free one"
        ) from error
