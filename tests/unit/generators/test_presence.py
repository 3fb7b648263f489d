"""A generator in the registry."""

from __future__ import annotations

import asyncio

import pytest

from sppo.errors import ConfigError, ScorerError
from sppo.generators import presence
from sppo.generators.presence import LONGEST_WORDS, Presence
from sppo.transport.memory import MemoryBroker
from sppo.types import Version


def test_a_heartbeat_tells_how_it_fares() -> None:
    registry = MemoryBroker().registry
    here = Presence(registry, "generator-0")
    here.tokens, here.answers = 7, 3
    here.refused("train-1", ScorerError("no"))
    here.refused("train-2", ScorerError("x" * 2000))
    asyncio.run(here.beat(Version(epoch="e", n=4), 2))
    (member,) = registry.members()
    assert (member.name, member.role, member.world_size) == ("generator-0", "generator", 2)
    assert (member.applied, member.tokens, member.progress) == ("e:4", 7, 3)
    assert member.refusals == 2
    assert member.refusal.startswith("train-2: x")
    assert len(member.refusal) == LONGEST_WORDS
    asyncio.run(here.leave())
    assert registry.members() == []


def test_every_life_of_a_name_is_another() -> None:
    registry = MemoryBroker().registry
    lives = set()
    for _ in range(2):
        asyncio.run(Presence(registry, "generator-0").beat(None, 1))
        (member,) = registry.members()
        assert member.applied == ""
        lives.add(member.life)
    assert len(lives) == 2


def test_a_name_in_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = MemoryBroker().registry
    asyncio.run(Presence(registry, "generator-0").beat(None, 1))
    monkeypatch.setattr(presence, "HEARTBEAT_TTL_S", 0.1)
    monkeypatch.setattr(presence, "HEARTBEAT_S", 0.1)
    with pytest.raises(ConfigError, match="generator-0: choose another --name"):
        asyncio.run(Presence(registry, "generator-0").take_name())
    asyncio.run(Presence(registry, "generator-1").take_name())
