"""How a Ray of a run's own is started; that it works is seen in whole runs."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import ray
from ray._private import node, services, worker

from sppo.launch import own_ray


def test_it_is_on_loopback_has_a_token_and_sees_no_closed_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {}

    def init(**settings: Any) -> None:
        given.update(settings, blocked=signal.pthread_sigmask(signal.SIG_BLOCK, []))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(services, "resolve_ip_for_localhost", None)
    monkeypatch.setattr(worker, "print_to_stdstream", None)
    for part in ("start_log_monitor", "start_monitor", "start_api_server"):
        monkeypatch.setattr(node.Node, part, None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    own_ray.begin()
    assert given["_node_ip_address"] == "127.0.0.1"
    assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
    assert given["include_dashboard"] is False
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_AUTH_MODE"] == "token"  # whatever it was: this Ray is ours
    assert "RAY_AUTH_MODE" not in own_ray.ENVIRONMENT  # that of a cluster is its owner's
    assert signal.SIGHUP in given["blocked"]
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_users_cluster_has_a_token_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    own_ray.authenticate(own=False)
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    monkeypatch.delenv("RAY_AUTH_MODE")
    own_ray.authenticate(own=False)
    assert os.environ["RAY_AUTH_MODE"] == "token"
