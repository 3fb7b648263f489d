"""Rules on threads: late ones, stuck ones, and the end of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sppo.errors import RoleDiedError, ScorerError, ScorerRefused
from sppo.scorer import base
from sppo.scorer.threads import THREADS
from sppo.types import ScoreRequest
from tests.unit.scorer.test_base import request, score_now


def test_an_error_of_a_rule_of_ours_would_come_again() -> None:
    bad = ScoreRequest(uid="train-7", question="q", completions=["1"], data={"answer": "none"})
    with pytest.raises(ScorerRefused, match=r"train-7.*holds no number"):
        score_now(base.InlineScorer("last-number"), bad)


def test_a_rule_that_takes_too_long_refuses_the_group_and_holds_nobody_else_up(
    slow_rule: str,
) -> None:
    async def several() -> float:
        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(2)
        )  # as on a small machine
        scorer = base.InlineScorer(slow_rule, timeout_s=0.3)
        started = time.monotonic()
        scoring = asyncio.gather(
            *(scorer.score(request("a")) for _ in range(THREADS - 1)), return_exceptions=True
        )
        await asyncio.sleep(0.05)
        await asyncio.to_thread(int)  # the pool that heartbeats use
        free_after = time.monotonic() - started
        found = await scoring
        assert all(isinstance(e, ScorerError) and "scorer.timeout_s = 0.3" in str(e) for e in found)
        await scorer.close()
        return free_after

    assert asyncio.run(several()) < 0.8


def test_a_process_whose_every_thread_is_stuck_says_so_and_ends(slow_rule: str) -> None:
    async def all_of_them() -> list[Any]:
        scorer = base.InlineScorer(slow_rule, timeout_s=0.2)
        calls = (scorer.score(request("a")) for _ in range(THREADS))
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(scorer.fault, RoleDiedError)
        await scorer.close()
        return list(found)

    found = asyncio.run(all_of_them())
    assert {type(e) for e in found} <= {RoleDiedError, ScorerError}
    assert RoleDiedError in {type(e) for e in found}


def test_a_rule_that_hangs_keeps_no_process_alive() -> None:
    # Given a process in which every thread is kept by a rule that does not return
    script = """
import asyncio, time
from sppo.errors import ScorerError
from sppo.scorer.threads import THREADS, Threads
from sppo.types import ScoreRequest

async def main():
    threads = Threads(lambda *_: time.sleep(600), timeout_s=0.2)
    request = ScoreRequest(uid="u", question="q", completions=["a"], data={})
    calls = (threads.score(request) for _ in range(THREADS))
    print(len(await asyncio.gather(*calls, return_exceptions=True)))
    threads.close()

asyncio.run(main())
"""
    # When it comes to its end
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    # Then it ends
    assert done.stdout.split() == [str(THREADS)]
