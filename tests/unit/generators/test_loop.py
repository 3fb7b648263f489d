"""The generator's loop with the deterministic engine and the in-memory broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sppo.errors import ScorerError, ScorerSpent
from sppo.generators.fake import FakeEngine
from sppo.generators.loop import Generator
from sppo.scorer.base import InlineScorer
from sppo.transport import codec
from sppo.transport.memory import MemoryBroker
from sppo.types import Answer, Group, SamplingParams, ScoreRequest, Scores, Version
from sppo.weights.gloo import GlooSender
from sppo.weights.publisher import WeightPublisher
from tests import makers
from tests.unit import judges
from tests.unit.weights.peers import weights


class Running:
    """A generator on a thread."""

    def __init__(
        self, broker: MemoryBroker, engine: FakeEngine, scorer: object | None = None, **learner: Any
    ) -> None:
        config = makers.run_config(
            generator={"max_groups": 4},
            weights={"phase_timeout_s": 3},
            **makers.sections(**learner),
        )
        self.error: BaseException | None = None
        self.publisher = WeightPublisher(
            broker.registry, broker.mailbox, GlooSender("127.0.0.1"), phase_timeout_s=3
        )
        self._broker = broker

        def run() -> None:
            try:
                used = scorer or InlineScorer("tests.unit.scorer.functions:by_length")
                asyncio.run(Generator(config, broker, engine, used, "generator-0").run())  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        wait(lambda: broker.registry.members() != [])

    def publish(self, n: int) -> None:
        self.publisher.publish(Version(epoch="e", n=n), weights(n).items())

    def stop(self) -> None:
        self._broker.registry.request_stop("workers", "test")
        self.thread.join(10)
        self.publisher.close()


def wait(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    made.tickets.open_epoch("e")
    return made


def groups(broker: MemoryBroker, count: int) -> list[Group]:
    found: list[Group] = []
    deadline = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline:
        for entry in broker.tickets.claim(100, 0.1):
            frame = broker.tickets.fetch(entry)
            assert frame is not None
            found.append(codec.decode_group(frame))
    return found


def test_tickets_become_scored_groups(broker: MemoryBroker) -> None:
    running = Running(broker, FakeEngine())
    running.publish(0)
    broker.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(6)])
    made = groups(broker, 6)
    running.stop()
    assert sorted(g.uid for g in made) == [f"train-{i:09d}" for i in range(6)]
    for group in made:
        assert group.rewards is not None
        assert len(group.completions) == len(group.rewards) == 2
        assert group.versions() == {Version(epoch="e", n=0)}
        assert group.gid.startswith(f"{group.uid}.generator-0.1.")
    assert broker.depths()["leased"] == 0
    assert broker.registry.members() == []  # it left
    assert running.error is None


def test_no_ticket_is_begun_before_the_first_weights(broker: MemoryBroker) -> None:
    running = Running(broker, FakeEngine())
    broker.tickets.issue([makers.ticket()])
    time.sleep(0.3)
    assert broker.depths()["todo"] == 1
    running.publish(0)
    assert len(groups(broker, 1)) == 1
    running.stop()


def test_an_evaluation_completion_is_of_one_version(broker: MemoryBroker) -> None:
    running = Running(broker, FakeEngine(token_s=0.05))
    running.publish(0)
    long = SamplingParams(completions=1, temperature=0.0, max_tokens=20, seed=3)
    broker.tickets.issue(
        [makers.ticket(f"eval-a-{i}", sampling=long, prompt_ids=(i,)) for i in range(3)]
    )
    wait(lambda: broker.depths()["leased"] == 3)
    running.publish(1)  # in the middle of them
    made = groups(broker, 3)
    running.stop()
    assert all(len(g.completions[0].spans) == 1 for g in made)
    assert {v.n for g in made for v in g.versions()} <= {0, 1}


def test_an_evaluation_by_comparison_has_the_answer_and_its_opponent(broker: MemoryBroker) -> None:
    running = Running(broker, FakeEngine(), InlineScorer(f"{judges.__name__}:longer"))
    running.publish(0)
    one = SamplingParams(completions=1, temperature=0.0, max_tokens=3, seed=3)
    base = Answer(token_ids=(7,) * 40, text="x" * 40, finish_reason="length")
    broker.tickets.issue([makers.ticket("eval-a-0", sampling=one, paired=True)])
    broker.tickets.issue([makers.ticket("eval-a-1", sampling=one, paired=True, against=base)])
    first, second = sorted(groups(broker, 2), key=lambda g: g.uid)
    running.stop()
    assert first.preferences is not None
    assert first.preferences.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert second.preferences is not None
    assert second.preferences.tolist() == [[0.5, 0.0], [1.0, 0.5]]  # the longer is preferred
    assert second.completions[1].token_ids.tolist() == [7] * 40


def test_an_evaluation_by_rewards_has_the_answer_alone(broker: MemoryBroker) -> None:
    running = Running(broker, FakeEngine())
    running.publish(0)
    one = SamplingParams(completions=1, temperature=0.0, max_tokens=3, seed=3)
    broker.tickets.issue([makers.ticket("eval-a-0", sampling=one, paired=True)])
    (group,) = groups(broker, 1)
    running.stop()
    assert group.rewards is not None
    assert len(group.completions) == len(group.rewards) == 1


def test_a_scorer_that_refuses_makes_a_dead_letter_with_its_reason_and_work_goes_on(
    broker: MemoryBroker,
) -> None:
    class Picky:
        async def score(self, request: ScoreRequest) -> Scores:
            if request.uid.endswith("1"):
                raise ScorerError(f"group {request.uid}: not this one")
            return Scores(rewards=np.zeros(len(request.completions), np.float32))

        async def close(self) -> None:
            """Nothing to release."""

    running = Running(broker, FakeEngine(), Picky())
    running.publish(0)
    broker.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(3)])
    assert {g.uid[-1] for g in groups(broker, 2)} == {"0", "2"}
    wait(lambda: broker.depths()["dead"] == 1)
    running.stop()
    letter = broker.tickets.dead_letters()[0]
    assert letter.uid == "train-000000001"
    assert "not this one" in letter.reason


def test_a_spent_scorer_is_told_of_and_the_tickets_are_kept_for_the_next_life(
    broker: MemoryBroker,
) -> None:
    class Spent:
        async def score(self, request: ScoreRequest) -> Scores:
            raise ScorerSpent("12 calls were made, the limit")

        async def close(self) -> None:
            """Nothing to release."""

    running = Running(broker, FakeEngine(), Spent())
    running.publish(0)
    broker.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(6)])
    wait(lambda: any(m.spent == "12 calls were made, the limit" for m in broker.registry.members()))
    assert broker.depths()["dead"] == 0
    running.stop()
    assert running.error is None
    assert broker.depths()["todo"] == 6


def test_preferences_that_contradict_themselves_are_tried_again_then_a_dead_letter(
    broker: MemoryBroker,
) -> None:
    # Given a judge that contradicts itself about one of three tickets
    running = Running(
        broker, FakeEngine(), InlineScorer(f"{judges.__name__}:longer"), target="half"
    )
    running.publish(0)
    questions = ["fine", "contradict", "fine"]
    broker.tickets.issue(
        [makers.ticket(f"train-{i:09d}", question=q) for i, q in enumerate(questions)]
    )
    # Then the others go on with their preferences
    made = groups(broker, 2)
    assert {g.uid[-1] for g in made} == {"0", "2"}
    for group in made:
        assert group.rewards is None
        assert group.preferences is not None
        assert group.preferences.shape == (2, 2)
    # And the letter names scorer, group and entry, after three attempts
    wait(lambda: broker.depths()["dead"] == 1)
    running.stop()
    reason = broker.tickets.dead_letters()[0].reason
    assert all(
        w in reason
        for w in ("longer, group train-000000001", "preferences[", "expected a sum of 1")
    ), reason


def test_rewards_where_preferences_are_needed_are_refused(broker: MemoryBroker) -> None:
    running = Running(broker, FakeEngine(), target="half")
    running.publish(0)
    broker.tickets.issue([makers.ticket()])
    wait(lambda: broker.depths()["dead"] == 1)
    (member,) = broker.registry.members()
    running.stop()
    assert "objective.link = 'bradley-terry'" in broker.tickets.dead_letters()[0].reason
    assert broker.work.failures[makers.ticket().uid] == 1  # it would fail again
    assert member.refusals in (0, 1)  # told by the next heartbeat


def test_a_scorer_that_gives_another_kind_of_score_than_before_is_refused(
    broker: MemoryBroker,
) -> None:
    class Fickle:
        async def score(self, request: ScoreRequest) -> Scores:
            if request.question == "compare":
                return Scores(preferences=np.full((2, 2), 0.5, np.float32))
            return Scores(rewards=np.zeros(2, np.float32))

        async def close(self) -> None:
            """Nothing to release."""

    running = Running(broker, FakeEngine(), Fickle())
    running.publish(0)
    broker.tickets.issue([makers.ticket("train-000000000")])
    assert len(groups(broker, 1)) == 1
    broker.tickets.issue([makers.ticket("train-000000001", question="compare")])
    wait(lambda: broker.depths()["dead"] == 1)
    running.stop()
    assert (
        "gave preferences, and rewards for an earlier group"
        in broker.tickets.dead_letters()[0].reason
    )


def test_leases_in_hand_are_given_back_on_a_stop(broker: MemoryBroker) -> None:
    running = Running(broker, FakeEngine(token_s=0.5))
    running.publish(0)
    long = SamplingParams(completions=2, temperature=1.0, max_tokens=500, seed=1)
    broker.tickets.issue([makers.ticket(sampling=long)])
    wait(lambda: broker.depths()["leased"] == 1)
    running.stop()
    assert (broker.depths()["leased"], broker.depths()["todo"]) == (0, 1)
