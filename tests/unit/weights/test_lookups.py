"""torch is made to fail at its first look-up, and to ask no more; tests/integration/test_lookups.py
has a machine whose DNS never answers.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from sppo.weights import lookups


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What a store was made with, and how its thread would look names up."""
    found: list[tuple[Any, ...]] = []

    def store(host: str, *_: Any, master_listen_fd: int, **__: Any) -> None:
        os.close(master_listen_fd)
        found.append((host, os.environ["RES_OPTIONS"], threading.current_thread().name))

    monkeypatch.setattr(lookups._dist, "TCPStore", store)
    lookups.leave_out.cache_clear()
    return found


@pytest.mark.parametrize("before", ["timeout:1", None])
def test_one_look_up_fails_at_once_in_a_thread_of_its_own(
    before: str | None, asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RES_OPTIONS", before or "")
    if before is None:
        monkeypatch.delenv("RES_OPTIONS")
    lookups.leave_out()
    lookups.leave_out()
    assert asked == [(lookups.NAMELESS, "attempts:0", "lookups")]
    assert os.environ.get("RES_OPTIONS") == before


def test_where_there_is_no_such_address_nothing_changes(
    asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "NAMELESS", "192.0.2.1")
    lookups.leave_out()
    assert asked == []
