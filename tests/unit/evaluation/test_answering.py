"""Answers come back in the order of the tickets, from an engine that is closed whatever happens."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest

from sppo.errors import RoleDiedError
from sppo.evaluation.answering import VERSION, answer
from sppo.generators.fake import FakeEngine
from sppo.types import SamplingParams
from tests import makers

DRAWN = SamplingParams(completions=2, temperature=1.0, max_tokens=5, seed=3)
TICKETS = [makers.ticket(f"eval-x-{i:06d}", prompt_ids=(i, 1)) for i in range(7)]


class Engine(FakeEngine):
    closed = False

    async def close(self) -> None:
        self.closed = True
        await super().close()


def test_each_ticket_has_its_own_answers_in_order() -> None:
    engine, told = Engine(), list[int]()
    found = answer(makers.run_config(), "", TICKETS, DRAWN, told.append, lambda *_: engine)
    again = answer(makers.run_config(), "", TICKETS, DRAWN, told.append, lambda *_: Engine())
    assert found == again
    assert all(len(each) == 2 for each in found)
    assert len({answer.token_ids for each in found for answer in each}) > 7
    assert all(each[0].text == str(sum(each[0].token_ids)) for each in found)
    assert told[:7] == list(range(1, 8))
    assert engine.version == VERSION
    assert engine.closed


def test_an_engine_that_fails_is_closed_and_says_why() -> None:
    class Broken(Engine):
        async def sample(self, *_: Any) -> Any:
            raise ValueError("the prompt does not fit")

    engine = Broken()
    with pytest.raises(ValueError, match="does not fit"):
        answer(makers.run_config(), "", TICKETS, DRAWN, lambda n: None, lambda *_: engine)
    assert engine.closed


@pytest.mark.parametrize("blocks", [False, True])
def test_one_that_never_comes_up_is_named_and_closed(blocks: bool) -> None:
    class Stuck(Engine):
        async def start(self) -> None:
            if blocks:
                time.sleep(60)
            await asyncio.sleep(60)

    engine, run = Stuck(), makers.run_config(generator={"start_timeout_s": 0.02})
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(RoleDiedError, match=r"'vllm': it did not come up .*start_timeout_s = 0.02"):
        answer(run, "", TICKETS, DRAWN, lambda n: None, lambda *_: engine)
    assert engine.closed
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
