"""An engine that takes turns with the learner, with the engine that only pretends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sppo import turns
from sppo.generators import turns as taking
from sppo.generators.fake import FakeEngine
from sppo.generators.loop import Generator
from sppo.generators.turns import TakesTurns
from sppo.scorer.base import InlineScorer
from sppo.transport.memory import MemoryBroker
from sppo.turns import Turns
from sppo.types import SamplingParams, Version
from sppo.weights.gloo import GlooSender
from sppo.weights.publisher import WeightPublisher
from tests import makers
from tests.unit.generators.test_loop import groups
from tests.unit.weights.peers import weights

SAMPLING = SamplingParams(completions=2, temperature=1.0, max_tokens=8, seed=1)


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for module in (turns, taking):
        monkeypatch.setattr(module, "LOOK_S", 0.002)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def by_length() -> InlineScorer:
    return InlineScorer("tests.unit.scorer.functions:by_length")


class Learner:
    """Has the GPU from `begins` to `ends`."""

    def __init__(self) -> None:
        self._turn: Any = None
        self.has_it = False

    async def begins(self) -> None:
        self._turn = Turns("run").alone(lambda: None)
        await asyncio.to_thread(self._turn.__enter__)
        self.has_it = True

    def ends(self) -> None:
        self.has_it = False
        self._turn.__exit__(None, None, None)


def test_it_finishes_sleeps_and_wakes_and_samples_nothing_meanwhile() -> None:
    async def work() -> None:
        fake, learner = FakeEngine(token_s=0.003), Learner()
        engine = TakesTurns(fake, Turns("run"))
        await engine.start()
        running = asyncio.create_task(engine.sample([1], SAMPLING, "a"))
        await asyncio.sleep(0.002)
        # When the learner wants the GPU, what is being sampled comes first
        await learner.begins()
        assert running.done()
        assert fake.naps == 1
        # and what is asked for now waits for the end of its turn
        later = asyncio.create_task(engine.sample([2], SAMPLING, "b"))
        await engine.ping()
        await asyncio.sleep(0.01)
        assert not later.done()
        learner.ends()
        assert len(await later) == len(await running) == 2
        await engine.close()
        await learner.begins()  # nobody is left who had it
        learner.ends()

    asyncio.run(work())


def test_a_weight_sync_waits_until_it_is_awake_and_is_not_slept_through() -> None:
    async def work() -> None:
        fake, learner = FakeEngine(), Learner()
        engine = TakesTurns(fake, Turns("run"))
        await engine.start()
        # Given a sync that has begun: the learner's turn comes after it
        await engine.pause()
        waiting = asyncio.create_task(learner.begins())
        await asyncio.sleep(0.02)
        assert (fake.naps, learner.has_it) == (0, False)
        await engine.resume()
        await waiting
        # Given one that begins while it sleeps: it comes when the learner is done
        pausing = asyncio.create_task(engine.pause())
        await asyncio.sleep(0.02)
        assert not pausing.done()
        learner.ends()
        await pausing
        assert not fake._asleep
        await engine.pause()  # announced again
        await engine.resume()
        await engine.close()

    asyncio.run(work())


def test_a_newcomer_starts_in_the_engines_turn_alone() -> None:
    async def work() -> None:
        learner, engine = Learner(), TakesTurns(fake := FakeEngine(), Turns("run"))
        await learner.begins()
        starting = asyncio.create_task(engine.start())
        await asyncio.sleep(0.02)
        assert not fake._running.is_set()
        learner.ends()
        await starting
        # and the learner waits for one that is starting
        assert fake._running.is_set()
        await engine.close()

    asyncio.run(work())


def test_a_wish_that_is_taken_back_lets_it_go_on() -> None:
    async def work() -> None:
        fake, hurry = FakeEngine(token_s=0.01), list[int]()
        engine = TakesTurns(fake, Turns("run"))
        await engine.start()
        running = asyncio.create_task(engine.sample([1], SAMPLING, "a"))
        await asyncio.sleep(0.002)

        def stop() -> None:
            if hurry:
                raise KeyboardInterrupt

        def wants() -> None:
            with pytest.raises(KeyboardInterrupt), Turns("run").alone(stop):
                pass

        wishing = asyncio.create_task(asyncio.to_thread(wants))
        await until(lambda: not engine._open.is_set())
        hurry.append(1)
        await wishing
        await until(engine._open.is_set)
        await engine.sample([2], SAMPLING, "b")
        await running
        assert fake.naps == 0
        await engine.close()

    asyncio.run(work())


def test_an_engine_that_cannot_sleep_ends_its_generator() -> None:
    class Sleepless(FakeEngine):
        async def sleep(self) -> None:
            raise RuntimeError("sleep mode is not enabled")

    async def work() -> None:
        engine, turns = TakesTurns(Sleepless(), Turns("run")), Learner()
        await engine.start()
        waiting = asyncio.create_task(turns.begins())
        assert engine._following is not None
        await until(engine._following.done)
        with pytest.raises(RuntimeError, match="not enabled"):
            await engine.ping()
        assert not turns.has_it  # its memory is still taken
        await engine.close()
        await waiting
        turns.ends()

    asyncio.run(work())


def test_tickets_are_kept_through_the_learners_turn_and_given_back_by_who_leaves_in_it() -> None:
    config = makers.run_config(
        generator={"max_groups": 3}, weights={"phase_timeout_s": 3}, broker={"lease_s": 0.3}
    )
    broker = MemoryBroker(config.broker)
    broker.tickets.open_epoch("e")
    publisher = WeightPublisher(
        broker.registry, broker.mailbox, GlooSender("127.0.0.1"), phase_timeout_s=3
    )
    v0 = Version(epoch="e", n=0)

    def begun() -> asyncio.Task[None]:
        engine, scorer = TakesTurns(FakeEngine(token_s=0.002), Turns("run")), by_length()
        return asyncio.create_task(Generator(config, broker, engine, scorer, "generator-0").run())

    async def publish() -> None:
        await until(lambda: broker.registry.members() != [])
        await asyncio.to_thread(publisher.publish, v0, weights(0).items())

    async def work() -> None:
        learner, first = Learner(), begun()
        await publish()
        broker.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(10)])
        await until(lambda: broker.depths()["leased"] == 3)
        await learner.begins()
        # Given a turn of the learner that is longer than a lease
        await until(lambda: (d := broker.depths())["leased"] == 3 and d["todo"] <= 4)
        left = broker.depths()["todo"]
        await asyncio.sleep(0.4)
        # Then nobody else gets what is in hand, and who ends in it hands that back
        other = broker.leases.lease(v0)  # an expired one would come first, and again
        assert other is not None
        assert other.attempt == 1
        broker.leases.release(other.ticket.uid, "train")
        assert (broker.depths()["leased"], broker.depths()["todo"]) == (3, left)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (broker.depths()["leased"], broker.depths()["todo"]) == (0, left + 3)
        broker.registry.leave("generator-0")
        second = begun()
        await asyncio.sleep(0.02)
        learner.ends()
        await publish()
        made = await asyncio.to_thread(groups, broker, 10)
        assert sorted(g.uid for g in made) == [f"train-{i:09d}" for i in range(10)]
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    asyncio.run(work())
    publisher.close()
