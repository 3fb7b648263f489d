"""Crash points: which label, at which passing, by which signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from sppo import faults
from sppo.errors import ConfigError


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    seen: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: seen.append(number))
    yield seen
    faults.arm("")


def test_a_process_dies_the_time_it_was_told_to(kills: list[int]) -> None:
    faults.arm("generator.leased@2")
    faults.point("generator.leased")
    faults.point("generator.scored")
    assert kills == []
    faults.point("generator.leased")
    assert kills == [signal.SIGKILL]
    faults.point("generator.leased")
    assert len(kills) == 1


def test_it_may_stand_still_instead(kills: list[int]) -> None:
    faults.arm("generator.leased!stop")
    faults.point("generator.leased")
    assert kills == [signal.SIGSTOP]


def test_an_empty_text_disarms(kills: list[int]) -> None:
    faults.arm("generator.leased")
    faults.arm("")
    faults.point("generator.leased")
    assert kills == []


@pytest.mark.parametrize("text", ["nowhere", "generator.leased@x", "generator.leased!burn"])
def test_a_mistake_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="SPPO_CRASH_POINT"):
        faults.arm(text)
