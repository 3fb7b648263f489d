"""Ports that are taken, names that do not resolve, proxies in the way, a Ray that is not up."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from sppo.config import BrokerConfig
from sppo.doctor import network
from sppo.doctor.findings import Run, made
from sppo.scorer.client import HttpScorer
from sppo.types import ScoreRequest

from .conftest import line, seen

Running = Callable[..., Run]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def chance(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "range").write_text(text)
    monkeypatch.setattr(network, "EPHEMERAL", folder / "range")


def test_few_ports_by_chance_are_a_warning(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen(network.ports(run())) == {"ports": "ok"}
    chance(tmp_path, "60000\t60999\n", monkeypatch)
    (it,) = network.ports(run())
    assert (it.state, "1,000 are given out" in it.words) == ("warn", True)


def test_a_scorers_port_that_is_taken_fails(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance(tmp_path, "1\t2\n", monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mine = run(f"scorer.port={taken.getsockname()[1]}")
        it = line(network.ports(mine), "scorer's port")
        assert (it.state, "ss -ltnp" in it.mend) == ("fail", True)
    assert line(network.ports(mine), "scorer's port").state == "ok"
    chance(tmp_path, "1\t65535\n", monkeypatch)
    assert line(network.ports(mine), "scorer's port").state == "warn"


def test_proxies_are_told_with_what_goes_through_them(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert network.proxies(run())[0].words == "none set"
    monkeypatch.setenv("http_proxy", "http://10.0.0.1:3128")
    (it,) = network.proxies(run())
    assert (it.state, it.words.startswith("http_proxy is set: the hub")) == ("ok", True)


def test_a_service_that_a_proxy_would_be_needed_for_is_a_warning(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://10.0.0.1:3128")
    away = run("scorer.url=http://scores.example.org:8000")
    (it,) = network.proxies(away)
    assert (it.state, "is asked without it" in it.words) == ("warn", True)
    monkeypatch.setenv("no_proxy", "example.org")
    assert network.proxies(away)[0].state == "ok"
    assert network.proxies(run("scorer.url=http://127.0.0.1:8000"))[0].state == "ok"


def test_a_judge_of_ones_own_network_behind_a_proxy_is_a_warning(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://10.0.0.1:3128")
    (it,) = network.proxies(run("scorer.judge.url=http://10.1.2.3:8000"))
    assert (it.state, it.mend) == ("warn", "no_proxy=10.1.2.3, if it is reached directly")
    (it,) = network.proxies(run("scorer.judge.url=http://gpu-07:8000"))
    assert it.state == "warn"
    (it,) = network.proxies(run("scorer.judge.url=https://api.example.org"))
    assert it.state == "ok"


class Scores(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"rewards": [1.0]}')

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Scores)
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    thread.join(5)
    server.server_close()


def test_a_scorer_service_is_reached_whatever_proxy_is_set(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there

    async def ask() -> object:
        scorer = HttpScorer(lambda: [service], token="", timeout_s=5)
        try:
            return await scorer.probe(
                ScoreRequest(uid="a", question="b", completions=("c",), data={})
            )
        finally:
            await scorer.close()

    assert asyncio.run(ask()) is not None


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Names that resolve; no others do."""
    known: dict[str, str] = {}

    def ask(host: str, _: Any) -> list[Any]:
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (known[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-07")
    return known


def test_a_name_of_its_own_that_does_not_resolve(run: Running, resolver: dict[str, str]) -> None:
    assert seen(network.names(run())) == {"names": "warn"}
    (it,) = network.names(run("launch.ray_address=auto"))
    assert (it.state, it.mend) == ("fail", "a line in /etc/hosts: ADDRESS gpu-07")
    resolver["gpu-07"] = "10.0.0.7"
    assert seen(network.names(run("launch.ray_address=auto"))) == {"names": "ok"}


def test_a_name_that_is_loopback_is_a_warning_with_several_machines(
    run: Running, resolver: dict[str, str]
) -> None:
    resolver["gpu-07"] = "127.0.1.1"
    assert seen(network.names(run())) == {"names": "ok"}
    (it,) = network.names(run("launch.ray_address=auto"))
    assert (it.state, "find themselves" in it.words) == ("warn", True)


def test_a_broker_whose_name_does_not_resolve_fails(run: Running, resolver: dict[str, str]) -> None:
    resolver["gpu-07"] = "10.0.0.7"
    away = run(broker=BrokerConfig(url="rediss://broker.example.org:6379"))
    it = network.names(away)[1]
    assert (it.state, "broker.example.org does not resolve" in it.words) == ("fail", True)


def test_a_resolver_that_does_not_answer_is_not_waited_for(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()

    def ask(*_: object) -> list[object]:
        never.wait(5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.setattr(network, "PATIENCE_S", 0.02)
    (it,) = network.names(run())
    never.set()
    assert it.state == "warn"


def test_a_ray_address_that_is_not_used_is_a_warning(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert seen(network.ray(run())) == {"Ray": "ok"}
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    (it,) = network.ray(run())
    assert (it.state, "launch.ray_address = 'auto'" in it.mend) == ("warn", True)


@pytest.fixture
def clustered(run: Running) -> Run:
    """A run that may join a cluster."""
    made_ = run("launch.ray_address=auto", "weights.trusted_network=true", "weights.host=auto",
                "generator.host=auto", "scorer.host=auto")  # fmt: skip
    broker = BrokerConfig(url="rediss://broker.example.org:6379")
    return Run(config=made_.config.model_copy(update={"broker": broker}), folder=made_.folder)


def test_a_head_that_answers_and_one_that_does_not(
    clustered: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        assert seen(network.ray(clustered)) == {"Ray": "ok"}
    (it,) = network.ray(clustered)
    assert (it.state, "does not answer" in it.words) == ("fail", True)


def test_no_head_to_be_found_fails(
    clustered: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert seen(network.ray(clustered)) == {"Ray": "fail"}
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("10.0.0.1:6379")
    assert network._head("auto") == "10.0.0.1:6379"


def test_a_cluster_with_a_broker_of_this_machine_fails(run: Running) -> None:
    (it,) = made("Ray", network.ray, run("launch.ray_address=10.0.0.1:6379"))
    assert (it.state, "embedded broker serves" in it.words) == ("fail", True)
