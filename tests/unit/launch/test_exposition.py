from __future__ import annotations

import importlib.util
import json
import socket
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from sppo import config
from sppo.config import MetricsConfig
from sppo.errors import ConfigError
from sppo.launch import exposition
from sppo.launch.figures import Figures


def get(url: str, token: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def figures() -> Figures:
    return Figures(config.load("quickstart"))


def test_who_brings_the_token_reads_at_the_address_that_is_written_down(
    tmp_path: Path, figures: Figures
) -> None:
    metrics = MetricsConfig(address="127.0.0.1:0", token="secret")  # type: ignore[arg-type]
    with exposition.served(metrics, tmp_path, "mine", figures):
        ((found),) = json.loads((tmp_path / "prometheus.json").read_text())
        assert found["labels"] == {"run": "mine"}
        url = f"http://{found['targets'][0]}"
        code, text = get(f"{url}/metrics", "secret")
        assert (code, get(f"{url}/metrics", "other")[0], get(url, "secret")[0]) == (200, 401, 404)
        assert "# HELP sppo_learner_tokens_total completion tokens trained; summed" in text
        taken = exposition.served(
            MetricsConfig(address=found["targets"][0]), tmp_path, "mine", figures
        )
        with pytest.raises(ConfigError, match="in use"):
            taken.__enter__()
    assert not (tmp_path / "prometheus.json").exists()


def test_nothing_listens_without_an_address(tmp_path: Path, figures: Figures) -> None:
    with exposition.served(MetricsConfig(), tmp_path, "mine", figures):
        assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exposition.check(MetricsConfig())
    with pytest.raises(ConfigError, match=r"pip install 'sppo\[prometheus\]'"):
        exposition.check(MetricsConfig(address="127.0.0.1:0"))


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_address_of_the_newer_kind(tmp_path: Path, figures: Figures) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with exposition.served(MetricsConfig(address="[::1]:0"), tmp_path, "mine", figures):
        (found,) = json.loads((tmp_path / "prometheus.json").read_text())
        assert get(f"http://{found['targets'][0]}/metrics")[0] == 200


def test_the_address_of_a_life_that_was_killed_is_taken_away(
    tmp_path: Path, figures: Figures
) -> None:
    (tmp_path / "prometheus.json").write_text("[]")
    with exposition.served(MetricsConfig(), tmp_path, "mine", figures):
        assert list(tmp_path.iterdir()) == []


def test_who_holds_connections_open_takes_no_more_threads_than_there_may_be(
    tmp_path: Path, figures: Figures, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(exposition, "MOST", 2)
    monkeypatch.setattr(exposition._Quiet, "timeout", 1.0)
    with exposition.served(MetricsConfig(address="127.0.0.1:0"), tmp_path, "mine", figures):
        (found,) = json.loads((tmp_path / "prometheus.json").read_text())
        host, port = found["targets"][0].split(":")
        silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(3)]
        # Then the third is turned away, and there is room once the others have said nothing
        assert silent[2].recv(1) == b""
        assert silent[0].recv(1) == silent[1].recv(1) == b""
        code, deadline = 0, time.monotonic() + 10
        while code != 200 and time.monotonic() < deadline:
            with suppress(OSError):
                code, _ = get(f"http://{found['targets'][0]}/metrics")
        assert code == 200
        for each in silent:
            each.close()
    assert "Traceback" not in capfd.readouterr().err


def test_nothing_listens_beyond_loopback_without_a_token(tmp_path: Path, figures: Figures) -> None:
    open_to_all = MetricsConfig(address="10.0.0.1:9464")
    with pytest.raises(
        ConfigError, match=r"metrics.address = '10.0.0.1:9464'.*SPPO_METRICS__TOKEN"
    ):
        exposition.check(open_to_all)
    with pytest.raises(ConfigError, match="SPPO_METRICS__TOKEN"):
        exposition.served(open_to_all, tmp_path, "mine", figures).__enter__()
