"""The learner's heartbeat tells life from progress."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sppo.learner import pulse as module
from sppo.learner.pulse import Pulse
from sppo.transport.memory import MemoryBroker


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_moves_with_the_work_or_by_itself_around_long_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.01)
    broker = MemoryBroker()

    def progress() -> int:
        return broker.registry.members()[0].progress if broker.registry.members() else -1

    with Pulse(broker.registry) as pulse:
        until(lambda: progress() == 0)
        time.sleep(0.05)
        assert progress() == 0  # it lives, and stands still
        pulse.beat()
        until(lambda: progress() == 1)
        with pulse.busy():
            until(lambda: progress() > 3)
    assert broker.registry.members() == []
