"""Which calls go to a process together."""

from __future__ import annotations

import asyncio

from sppo.scorer.batches import CONCURRENT, Batches, Call, Message


def call(*, alone: bool = False) -> Call:
    return Call("{}", lambda: 1.0, alone, answer=asyncio.Future(loop=asyncio.new_event_loop()))


def sizes(batches: Batches) -> list[int]:
    """Of the messages that may go now."""
    found = []
    while message := batches.take():
        found.append(len(message.calls))
    return found


def test_one_at_a_time_waits_for_the_one_before() -> None:
    batches = Batches(1, concurrent=False)
    batches.add(call())
    first = batches.take()
    assert isinstance(first, Message)
    batches.add(call())
    assert batches.take() is None
    assert batches.back(first.id) is first
    assert sizes(batches) == [1]
    assert (batches.slots, Batches(1, concurrent=True).slots) == (1, CONCURRENT)


def test_a_batch_is_what_waits_and_no_more() -> None:
    batches = Batches(4, concurrent=False)
    for _ in range(6):
        batches.add(call())
    assert sizes(batches) == [4]
    batches.back(0)
    assert sizes(batches) == [2]


def test_an_async_scorer_gets_full_batches_beside_those_in_hand() -> None:
    batches = Batches(2, concurrent=True)
    for _ in range(5):
        batches.add(call())
    assert sizes(batches) == [2, 2]
    batches.back(0)
    assert sizes(batches) == []
    batches.back(1)
    assert sizes(batches) == [1]


def test_a_call_that_must_be_alone_is_and_one_that_nobody_awaits_is_left_out() -> None:
    batches = Batches(4, concurrent=False)
    gone, alone = call(), call(alone=True)
    for each in (call(), gone, alone, call(), call()):
        batches.add(each)
    gone.answer.cancel()
    for number, size in enumerate([1, 1, 2]):
        assert sizes(batches) == [size]
        batches.back(number)
    assert batches.all() == []
