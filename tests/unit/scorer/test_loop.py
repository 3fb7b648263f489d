"""The scorer role: there while it can score, gone when it is asked to leave or cannot."""

from __future__ import annotations

import threading
import time

import pytest

from sppo.errors import ConfigError, RoleDiedError
from sppo.scorer import loop
from sppo.scorer.client import HttpScorer
from sppo.transport.memory import MemoryBroker
from sppo.types import Scores
from tests import makers
from tests.unit.scorer.test_base import request


def test_it_announces_where_it_serves_and_leaves_on_request() -> None:
    # Given
    registry, leave = MemoryBroker().registry, threading.Event()
    config = makers.run_config(scorer={"name": "last-number", "token": ""})
    errors: list[BaseException] = []

    def role() -> None:
        try:
            loop.run(config, registry, "scorer-0", leave)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    thread = threading.Thread(target=role, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not registry.members():
        assert time.monotonic() < deadline
        assert not errors
        time.sleep(0.02)
    # When
    (member,) = registry.members()
    found = ask(member.address)
    leave.set()
    thread.join(20)
    # Then
    assert member.role == "scorer"
    assert found.rewards is not None
    assert found.rewards.tolist() == [1.0, 0.0]
    assert registry.members() == []
    assert errors == []


def ask(url: str) -> Scores:
    import asyncio

    async def once() -> Scores:
        client = HttpScorer(lambda: [url], token="", timeout_s=10, own_s=0)
        try:
            return await client.score(request("It is -3", "It is 3"))
        finally:
            await client.close()

    return asyncio.run(once())


def test_a_function_that_cannot_be_imported_ends_the_role() -> None:
    config = makers.run_config(scorer={"name": "no_such_module:score", "token": ""})
    registry = MemoryBroker().registry
    with pytest.raises((ConfigError, RoleDiedError), match="no_such_module"):
        loop.run(config, registry, "scorer-0", threading.Event())
    assert registry.members() == []
