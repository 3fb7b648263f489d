"""[broker] by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sppo.config import BrokerConfig, is_loopback


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "redis://10.0.0.5:6379"}, "would cross the network in the clear"),
        ({"url": "rediss://host?ssl_cert_reqs=none"}, "no options after a question mark"),
        ({"url": "redis://me:secret@127.0.0.1"}, "SPPO_BROKER__PASSWORD"),
        ({"url": "http://127.0.0.1"}, "must start with redis://, rediss:// or unix://"),
        ({"tls_ca": "/nowhere/ca.pem"}, "no such file"),
        ({"lease_s": 0}, "greater than 0"),
    ],
)
def test_a_server_that_is_not_safe_or_not_there_is_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        BrokerConfig(**settings)


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1", "unix:///tmp/s", "rediss://host:6379"])
def test_a_server_here_or_behind_tls_is_taken(url: str, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    assert BrokerConfig(url=url, tls_ca=str(authority)).url == url


def test_a_lease_is_renewed_four_times_before_it_runs_out() -> None:
    assert BrokerConfig(lease_s=2).renew_s == 0.5


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("10.0.0.5", False), ("host", False)],
)
def test_only_this_machine_reaches_loopback(host: str, here: bool) -> None:
    assert is_loopback(host) is here
