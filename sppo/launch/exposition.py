"""`/metrics` of a run over HTTP, for Prometheus, and RUN/prometheus.json, by which it is found.

scrape_configs:
  - job_name: sppo
    file_sd_configs: [{files: ["runs/*/prometheus.json"]}]
"""

from __future__ import annotations

import hmac
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from sppo.config import MetricsConfig
from sppo.errors import ConfigError
from sppo.launch import run_dir as run_dirs
from sppo.launch.figures import Figures

log = logging.getLogger(__name__)

DISCOVERY = "prometheus.json"
LOOK_S = 0.1
"""Between two looks at whether to end."""
MOST = 16
"""Connections at once: whoever holds more open takes neither threads nor files from the run."""
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def check(config: MetricsConfig) -> None:
    """Raises ConfigError if the package is not installed, or a token is lacking."""
    _check_token(config)
    if config.address and importlib.util.find_spec("prometheus_client") is None:
        raise ConfigError(
            f"metrics.address = {config.address!r}, and prometheus-client is not installed: pip "
            "install 'sppo[prometheus]'"
        )


def _check_token(config: MetricsConfig) -> None:
    if config.lacks_token:
        raise ConfigError(
            f"metrics.address = {config.address!r}: beyond loopback it wants a token; give "
            "SPPO_METRICS__TOKEN, or use 127.0.0.1"
        )


@contextmanager
def served(config: MetricsConfig, run_dir: Path, name: str, figures: Figures) -> Iterator[None]:
    """Inside, whoever brings the token gets the figures. Raises ConfigError if nothing can listen
    there, or may not without a token.
    """
    _check_token(config)
    found = run_dir / DISCOVERY
    found.unlink(missing_ok=True)  # of a life that was killed: the address may be another's now
    if not config.address:
        yield
        return
    try:
        server = _Server(config.place, _Quiet)
    except OSError as error:
        raise ConfigError(
            f"metrics.address = {config.address!r}: {error.strerror or error}; use another port"
        ) from error
    server.set_app(_guarded(_app(figures), config.token.get_secret_value()))
    thread = threading.Thread(
        target=server.serve_forever, args=(LOOK_S,), daemon=True, name="metrics"
    )
    thread.start()
    host, _ = config.place
    target = f"[{host}]:{server.server_port}" if ":" in host else f"{host}:{server.server_port}"
    run_dirs.write_json(found, [{"targets": [target], "labels": {"run": name}}])
    try:
        yield
    finally:
        found.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
        thread.join()


def _app(figures: Figures) -> App:
    from prometheus_client import CollectorRegistry, make_wsgi_app

    registry = CollectorRegistry()
    registry.register(figures)
    app: App = make_wsgi_app(registry)
    return app


def _guarded(app: App, token: str) -> App:
    """The application at /metrics, for who brings the token, if there is one."""
    wanted = f"Bearer {token}".encode()

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        given = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1")
        if token and not hmac.compare_digest(given, wanted):
            start("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
            return [b"missing or wrong bearer token\n"]
        if environ["PATH_INFO"] != "/metrics":
            start("404 Not Found", [])
            return [b"/metrics is here\n"]
        return app(environ, start)

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, place: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        if ":" in place[0]:
            import socket

            self.address_family = socket.AF_INET6
        super().__init__(place, handler)

        self._free = threading.BoundedSemaphore(MOST)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own; turned away where there are enough."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Then there is room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who connects and says nothing, or leaves, is no matter for the terminal."""
        log.info("a request for /metrics was not answered: %r", sys.exception())

    def server_bind(self) -> None:
        """Without asking DNS for this machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "sppo", int(self.server_address[1])
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not written down."""
