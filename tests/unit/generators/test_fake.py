"""The deterministic engine of tests."""

from __future__ import annotations

import asyncio

from sppo.generators.fake import VOCABULARY, FakeEngine
from sppo.types import Completion, SamplingParams, Version

SAMPLING = SamplingParams(completions=3, temperature=1.0, max_tokens=5, seed=2)


async def started(token_s: float = 0.0) -> FakeEngine:
    engine = FakeEngine(token_s=token_s)
    await engine.start()
    return engine


def test_the_same_ticket_gives_the_same_completions() -> None:
    async def twice() -> list[list[Completion]]:
        return [await (await started()).sample([1, 2], SAMPLING, "a") for _ in range(2)]

    one, other = asyncio.run(twice())
    assert [c.text for c in one] == [c.text for c in other]
    assert len({c.text for c in one}) > 1
    for each in one:
        assert 1 <= len(each.token_ids) <= 5
        assert max(each.token_ids) < VOCABULARY
        assert each.text == str(int(each.token_ids.sum()))


def test_a_pause_holds_tokens_back_and_a_new_version_begins_a_span() -> None:
    async def story() -> list[Completion]:
        engine = await started(token_s=0.02)
        engine.version = Version(epoch="e", n=1)
        await engine.pause()
        sampling = asyncio.ensure_future(engine.sample([1], SAMPLING, "a"))
        await asyncio.sleep(0.1)
        assert not sampling.done()
        await engine.resume()
        await asyncio.sleep(0.01)
        engine.version = Version(epoch="e", n=2)
        return await sampling

    for each in asyncio.run(story()):
        assert each.spans[0].start == 0
        assert each.spans[-1].end == len(each.token_ids)
        assert each.spans[0].version.n == 1
        assert len(each.spans) == (1 if len(each.token_ids) == 1 else 2)
