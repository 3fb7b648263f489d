"""A process has its next group in hand while it scores one, unless that takes its time."""

from __future__ import annotations

import asyncio

import pytest

from sppo.scorer import pool
from sppo.scorer.pool import Pool
from tests.unit.scorer.test_pool import request, score


def test_a_quick_process_has_its_next_group_in_hand_and_a_slow_call_gives_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "MEMORY", 1 << 20)  # room for one process

    async def two(used: Pool) -> None:
        (process,) = used._processes
        slow = asyncio.create_task(used.score(request("time.sleep(0.6)")))
        await asyncio.sleep(0)
        behind = asyncio.create_task(used.score(request("pass")))
        await asyncio.sleep(0)
        # Given a process whose calls were quick, then it has two groups
        assert process.in_hand == 2
        # and when the first takes its time, then the other waits for any process again
        while process.in_hand == 2:
            await asyncio.sleep(0.01)
        assert not slow.done()
        assert (await slow, await behind) == ([1.0], [1.0])

    score("runs_code", request("pass"), then=two)
