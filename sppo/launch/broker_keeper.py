"""The broker of a run: the embedded one is started, watched and mended here; a user's own is only
used.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sppo.config import BrokerConfig, RunConfig, with_secrets
from sppo.errors import BrokerError
from sppo.launch import verdicts
from sppo.launch.restarts import Restarts
from sppo.launch.verdicts import Do
from sppo.transport.broker import Broker
from sppo.transport.redis_broker import connect
from sppo.transport.server import EmbeddedServer

POLL_S = 3.0
"""How often the supervisor looks."""
CLIENT_PATIENCE_S = 1.0
"""The process that mends an embedded broker must not wait for one."""


class BrokerKeeper:
    """Owner of the embedded server, if there is one."""

    def __init__(
        self, folder: Path, restarts: Restarts, tell: Callable[..., None], away: Callable[[], None]
    ) -> None:
        """`folder` is the server's; `away` is called when nobody could reach it for a while."""
        self._folder = folder
        self._restarts = restarts
        self._tell = tell
        self._away = away
        self._server: EmbeddedServer | None = None
        self._answered_at = 0.0

    @contextmanager
    def open(self, config: RunConfig, run_key: str) -> Iterator[tuple[RunConfig, Broker]]:
        """The broker to use, started if it is the embedded one, and the configuration with what
        roles need to reach it.
        """
        settings = own = config.broker
        try:
            if not settings.url:
                self._server = EmbeddedServer(self._folder, max_bytes=settings.max_bytes)
                settings = self._server.start(settings)
                self._answered_at = time.monotonic()
                own = settings.model_copy(update={"outage_s": CLIENT_PATIENCE_S})
            token = config.scorer.token.get_secret_value() or secrets.token_hex(32)
            broker = connect(own, run_key)
            key = config.scorer.judge.api_key.get_secret_value()
            settled = with_secrets(config, broker=settings, scorer_token=token, judge_key=key)
            yield settled, broker
            broker.close()
        finally:
            if self._server is not None:
                self._server.stop()

    @property
    def pid(self) -> int | None:
        """Process of the embedded server."""
        return self._server.pid if self._server else None

    def credentials(self, config: BrokerConfig, role: str) -> BrokerConfig:
        """The settings with this role's user and password, where each role has its own."""
        return self._server.credentials(config, role) if self._server else config

    def there(self) -> bool:
        """Whether the broker answers; an embedded one that died or hangs is started again. Raises
        BrokerError.
        """
        if self._server is None:
            return True  # a server of the user's own: clients wait for it and say so
        now = time.monotonic()
        answers, silent_s = self._server.answers(), now - self._answered_at
        do, what = verdicts.broker(
            answers=answers, alive=self._server.pid is not None, silent_s=silent_s
        )
        if do is Do.GO_ON:
            if silent_s > 2 * POLL_S:
                self._away()
            self._answered_at = now
            self._restarts.saw("broker")
        elif do is Do.RESTART:
            self._restart(self._server, what)
        return do is not Do.WAIT

    def ask(self, work: Callable[[], object]) -> bool:
        """Work with the broker, which may be lost in between: then it is found out and mended in
        the next round. Whether the work was done.
        """
        try:
            work()
        except BrokerError:
            if verdicts.broker_lost(embedded=self._server is not None) is Do.FAIL:
                raise
            return False
        return True

    def _restart(self, server: EmbeddedServer, what: str) -> None:
        # Started again at once: everyone waits for it. Too often is the end all the same.
        self._restarts.delay_s(
            "broker", BrokerError(f"the broker {what}; see {self._folder}/server.log")
        )
        self._tell("restart", f"the broker is started again: it {what}", role="broker")
        server.restart()
        self._away()
        self._answered_at = time.monotonic()
