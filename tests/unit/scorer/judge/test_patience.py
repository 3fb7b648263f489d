"""A call until it is answered: tries, places, and everyone waiting together."""

from __future__ import annotations

import asyncio
import time

import pytest

from sppo.errors import ScorerError
from sppo.scorer.judge import patience
from sppo.scorer.judge.endpoint import Endpoint, Reply
from sppo.scorer.judge.patience import TRIES, Patient
from tests.unit.scorer.judge.fake import Fake, Handler, chat, error, http, judges, says, serve

BODY = {"model": "m", "messages": [{"role": "user", "content": "?"}]}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.002)
    monkeypatch.setattr(patience, "LONGEST_S", 0.01)


def ask(
    handler: Handler, *, calls: int = 1, at_once: int = 4
) -> tuple[list[Reply | BaseException], Fake, float]:
    async def go() -> tuple[list[Reply | BaseException], Fake, float]:
        async with serve(handler) as fake:
            one = Endpoint(fake.url, key="", timeout_s=5.0, at_once=at_once)
            patient, begun = Patient(one, at_once=at_once), time.monotonic()
            found = await asyncio.gather(
                *(patient.complete(BODY) for _ in range(calls)), return_exceptions=True
            )
            await one.close()
            return found, fake, time.monotonic() - begun

    return asyncio.run(go())


def test_errors_are_tried_again_and_then_told_once() -> None:
    found, fake, _ = ask(says(http(b"boom", "500 X"), http(b"<html>"), chat("A")))
    assert isinstance(found[0], Reply)
    assert len(fake.bodies) == 3
    found, fake, _ = ask(says(http(b"boom", "500 X")))
    assert type(found[0]) is ScorerError
    assert str(found[0]).count("boom") == 1
    assert len(fake.bodies) == TRIES


def test_busy_is_waited_for_however_often_and_counts_as_no_failure() -> None:
    busy = error("429 Too Many Requests", "later")
    found, fake, _ = ask(says(*[busy] * (3 * TRIES), chat("A")))
    assert isinstance(found[0], Reply)
    assert len(fake.bodies) == 3 * TRIES + 1


def test_everyone_waits_for_as_long_as_one_was_told_to() -> None:
    busy = error("503 Service Unavailable", "later", "Retry-After: 0.2")
    found, fake, took_s = ask(says(busy, chat("A")), calls=8, at_once=1)
    assert all(isinstance(each, Reply) for each in found)
    assert took_s >= 0.2
    assert len(fake.bodies) == 9


def test_no_more_calls_at_a_time_than_there_are_places() -> None:
    _, fake, _ = ask(judges(lambda _: "A", 0.02), calls=20, at_once=4)
    assert fake.most_at_once == 4


def test_a_judge_that_was_never_there_is_no_judge_and_one_that_went_is_waited_for() -> None:
    async def go() -> None:
        async with serve(says(chat("A"))) as fake:
            one = Endpoint(fake.url, key="", timeout_s=5.0, at_once=4)
            met, unmet = Patient(one, at_once=4), Patient(one, at_once=4)
            await met.complete(BODY)
        with pytest.raises(ScorerError, match=r"cannot be reached.*is the judge running"):
            await unmet.complete(BODY)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(met.complete(BODY), 0.2)
        await one.close()

    asyncio.run(go())


def test_what_was_tried_again_and_what_waited_is_counted() -> None:
    async def go() -> tuple[int, int]:
        later = error("429 Too Many Requests", "later", "Retry-After: 0.01")
        async with serve(says(http(b"boom", "500 X"), later, chat("A"))) as fake:
            one = Endpoint(fake.url, key="", timeout_s=5.0, at_once=1)
            patient = Patient(one, at_once=1)
            await patient.complete(BODY)
            await one.close()
            return patient.retries, patient.waits

    assert asyncio.run(go()) == (1, 1)
