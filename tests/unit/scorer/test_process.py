"""One process of a user's function."""

from __future__ import annotations

import asyncio

import pytest

from sppo.errors import ConfigError, ScorerError, ScorerRefused
from sppo.scorer.process import CONCURRENT, Late, Lost, ScorerProcess
from sppo.types import ScoreRequest

HERE = "tests.unit.scorer.functions"


def request(*completions: str, **data: object) -> ScoreRequest:
    return ScoreRequest(uid="train-7", question="q", completions=completions, data=data)


def test_it_answers_until_it_is_ended() -> None:
    async def story() -> None:
        process = await ScorerProcess.start(f"{HERE}:by_length", limit_s=60)
        assert process.slots == 1
        assert await process.call(request("a", "bc"), lambda: 30.0) == [1.0, 2.0]
        assert process.answered == 1
        with pytest.raises(ScorerRefused, match="cannot be written as JSON"):
            await process.call(request("a", thing=object()), lambda: 30.0)
        process.end()
        assert process.child.ended

    asyncio.run(story())


def test_a_late_call_of_an_async_function_is_given_up_alone() -> None:
    async def story() -> None:
        process = await ScorerProcess.start(f"{HERE}:awaited", limit_s=60)
        assert process.slots == CONCURRENT
        with pytest.raises(Late):
            await process.call(request("never"), lambda: 0.2)
        assert await process.call(request("bc"), lambda: 30.0) == [2.0]
        process.end()

    asyncio.run(story())


def test_a_process_that_dies_tells_who_is_to_blame() -> None:
    async def story() -> None:
        process = await ScorerProcess.start(f"{HERE}:awaited", limit_s=60)
        with pytest.raises(Lost, match="exit code 5") as lost:
            await process.call(request("die"), lambda: 30.0)
        assert lost.value.blame == "alone"
        assert process.child.ended

    asyncio.run(story())


def test_what_cannot_be_imported_is_the_users_mistake() -> None:
    async def story() -> None:
        with pytest.raises(ConfigError, match="cannot be imported: ModuleNotFoundError"):
            await ScorerProcess.start("no_such_module:score", limit_s=60)
        with pytest.raises((ConfigError, ScorerError)):
            await ScorerProcess.start(f"{HERE}:by_length", limit_s=0.0)

    asyncio.run(story())
