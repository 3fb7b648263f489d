"""One process of a user's function."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sppo.errors import ConfigError, ScorerError, ScorerRefused
from sppo.scorer.batches import CONCURRENT
from sppo.scorer.process import Apart, Late, Lost, ScorerProcess, Source
from sppo.types import ScoreRequest

HERE = "tests.unit.scorer.functions"


def request(*completions: str, **data: object) -> ScoreRequest:
    return ScoreRequest(uid="train-7", question="q", completions=completions, data=data)


async def start(name: str, *, limit_s: float = 60, **options: object) -> ScorerProcess:
    return await ScorerProcess.start(Source(name=name, options=options), limit_s=limit_s)


def test_it_answers_until_it_is_ended() -> None:
    async def story() -> None:
        process = await start(f"{HERE}:by_length", limit_s=60)
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
        process = await start(f"{HERE}:awaited", limit_s=60)
        assert process.slots == CONCURRENT
        with pytest.raises(Late):
            await process.call(request("never"), lambda: 0.2)
        assert await process.call(request("bc"), lambda: 30.0) == [2.0]
        process.end()

    asyncio.run(story())


def test_a_process_that_dies_tells_who_is_to_blame() -> None:
    async def story() -> None:
        process = await start(f"{HERE}:awaited", limit_s=60)
        with pytest.raises(Lost, match="exit code 5") as lost:
            await process.call(request("die"), lambda: 30.0)
        assert lost.value.blame == "alone"
        assert process.child.ended

    asyncio.run(story())


def test_what_cannot_be_imported_is_the_users_mistake() -> None:
    async def story() -> None:
        with pytest.raises(ConfigError, match="cannot be imported: ModuleNotFoundError"):
            await start("no_such_module:score", limit_s=60)
        with pytest.raises((ConfigError, ScorerError)):
            await start(f"{HERE}:by_length", limit_s=0.0)

    asyncio.run(story())


def test_an_object_is_made_with_its_options_set_up_and_closed(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def story() -> None:
        process = await start(f"{HERE}:Ranker", log=str(log), factor=2)
        assert process.slots == 1
        reply = await process.call(request("a", "bc"), lambda: 30.0)
        assert reply == {"rewards": [2.0, 4.0], "details": [{"uid": "train-7"}, {"uid": "train-7"}]}
        assert process.close()
        while not process.child.fate():
            await asyncio.sleep(0.01)
        process.end()

    asyncio.run(story())
    assert log.read_text().split() == ["setup", "close"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"log": "x", "fcator": 2},
            r"^scorer\.options\.fcator: no such option.*mean factor\?$",
        ),
        ({}, r"^scorer\.options\.log: .*Ranker needs it$"),
        ({"log": "x", "factor": "much"}, r"^scorer\.options\.factor = 'much': must be a number$"),
        ({"log": "/no/such/folder/x"}, r"setup failed: FileNotFoundError.*functions\.py, line"),
    ],
)
def test_options_that_do_not_fit_are_the_users_mistake(
    options: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        asyncio.run(start(f"{HERE}:Ranker", **options))


@pytest.mark.parametrize("name", ["Batched", "AsyncBatched"])
def test_groups_that_wait_are_handed_over_together(name: str) -> None:
    async def story() -> None:
        process = await start(f"{HERE}:{name}")
        calls = [process.call(request(*"a" * n), lambda: 30.0) for n in range(1, 7)]
        sizes = [int(reply[0]) for reply in await asyncio.gather(*calls)]
        assert sizes == [4, 4, 4, 4, 2, 2]
        assert await process.call(request("a"), lambda: 30.0) == [1.0]  # and nobody waits for more
        process.end()

    asyncio.run(story())


@pytest.mark.parametrize("name", ["Batched", "AsyncBatched"])
def test_a_batch_that_fails_is_asked_about_one_by_one(name: str) -> None:
    async def story() -> None:
        process = await start(f"{HERE}:{name}")
        calls = [process.call(request(c), lambda: 30.0) for c in ("a", "bad")]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in found] == [Apart, Apart]
        assert await process.call(request("a"), lambda: 30.0, alone=True) == [1.0]
        with pytest.raises(ScorerError, match="ValueError: bad"):
            await process.call(request("bad"), lambda: 30.0, alone=True)
        process.end()

    asyncio.run(story())
