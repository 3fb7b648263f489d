"""`sppo-cli bench scorer`: what stands between a generator and a scorer behind our service.

A service in a process of its own, asked by the client that generators have. Three things: groups at
once whose scorer waits, groups whose scorer computes against as many processes that only call it,
and groups in hand when the service is killed and started again.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sppo.bench import scorer_load
from sppo.bench.checks import Check, at_least, at_most
from sppo.scorer.client import HttpScorer
from sppo.scorer.service import Service
from sppo.types import ScoreRequest, Scores

CONTEXT = multiprocessing.get_context("spawn")
TOKEN = "bench"
COMPLETIONS = 8
WORDS = "What a completion of some length says. " * 20
TIMEOUT_S = 60.0
KILL_AFTER_S = 0.05
"""From when groups are sent to the service's death: less than a scorer waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What became of the groups, of 8 completions of 780 letters each."""

    at_once: int
    """Groups that were asked about at once, in each round."""
    waits_s: float
    """What their scorer waits."""
    p50_s: float
    p99_s: float
    """Of the seconds from a question to its answer, of the median round."""
    lost: int
    """Groups without an answer, or with another's, of all three parts."""
    processes: int
    """That compute: as many as there are cores."""
    direct_per_s: float
    """Groups that they score a second when they only call the scorer."""
    served_per_s: float
    killed_in_hand: int
    """Groups in hand when the service was killed."""
    back_s: float
    """From its death to the last answer, its start included."""


def measure(at_once: int, rounds: int, computed: int, say: Callable[[str], None]) -> Measured:
    """All three parts; `computed` groups are computed in each round."""
    with serving("waits") as url:
        say(f"{at_once} groups at once, {rounds} times ...")
        waits = asyncio.run(_waiting(url, at_once, rounds))
    p50, p99 = (float(np.median(np.quantile(waits.seconds, q, axis=1))) for q in (0.5, 0.99))
    processes = len(os.sched_getaffinity(0))
    say(f"{computed} groups computed by {processes} processes, {rounds} times each way ...")
    direct, served = list[float](), list[float]()
    lost = waits.lost
    with serving("computes") as url, CONTEXT.Pool(processes) as pool:
        for _ in range(rounds):  # in turns: a busy moment of the machine hits both
            direct.append(_direct(pool, computed, processes))
            rate, wrong = asyncio.run(_computing(url, computed, processes))
            served.append(rate)
            lost += wrong
    say("a service that is killed ...")
    in_hand, back_s, wrong = asyncio.run(_killed(at_once))
    return Measured(
        at_once=at_once, waits_s=scorer_load.WAIT_S, p50_s=p50, p99_s=p99, lost=lost + wrong,
        processes=processes, direct_per_s=float(np.median(direct)),
        served_per_s=float(np.median(served)), killed_in_hand=in_hand, back_s=back_s,
    )  # fmt: skip


def checks(found: Measured) -> list[Check]:
    return [
        at_most("scorer_lost", found.lost, 0, "groups"),
        at_most("scorer_p99", found.p99_s / found.waits_s, 3.0, "x what the scorer waits"),
        at_least("scorer_vs_direct", found.served_per_s / found.direct_per_s, 0.9, "x groups/s"),
    ]


def table(found: Measured) -> list[str]:
    """The figures in words."""
    ratio = found.served_per_s / found.direct_per_s
    beside_s = found.processes * (1 / found.served_per_s - 1 / found.direct_per_s)
    return [
        f"waits     {found.at_once} groups at once, whose scorer waits {found.waits_s:g} s: half "
        f"within {found.p50_s:.3f} s, 99 of 100 within {found.p99_s:.3f} s",
        f"computes  {found.served_per_s:.1f} groups a second of {found.direct_per_s:.1f} that "
        f"{found.processes} processes score without a service: {ratio:.3f}, "
        f"{1e3 * beside_s:.1f} ms of a processor beside each group",
        f"killed    with {found.killed_in_hand} groups in hand; all answered {found.back_s:.1f} s "
        "later",
        f"lost      {found.lost} groups",
    ]


@contextmanager
def serving(scorer: str, port: int = 0) -> Iterator[str]:
    """The address of a service in a process of its own, with a scorer of `scorer_load`."""
    process, url = start(scorer, port)
    try:
        yield url
    finally:
        process.kill()
        process.join()


def start(scorer: str, port: int) -> tuple[Any, str]:
    """Such a process, and its address. Its scorer's processes end with it."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_serve, args=(scorer, port, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, str(ours.recv())


def _serve(scorer: str, port: int, told: Any) -> None:
    name = f"{scorer_load.__name__}:{scorer}"
    service = Service(name, token=TOKEN, port=port, timeout_s=TIMEOUT_S)
    service.start()
    told.send(service.url)
    while service.alive:
        time.sleep(1.0)


def request(number: int) -> ScoreRequest:
    """A group that no other equals."""
    return ScoreRequest(
        uid=f"bench-{number}", question=f"Question {number}?", data={"number": number},
        completions=[WORDS] * COMPLETIONS,
    )  # fmt: skip


def is_own(number: int, scores: Scores | BaseException) -> bool:
    """Whether this is the answer to that group."""
    own = scorer_load.own(number, COMPLETIONS)
    return isinstance(scores, Scores) and scores.rewards is not None and own == list(scores.rewards)


@dataclass(frozen=True, slots=True)
class _Waits:
    seconds: Sequence[Sequence[float]]
    lost: int


@asynccontextmanager
async def _asker(url: str) -> AsyncIterator[HttpScorer]:
    scorer = HttpScorer(lambda: [url], token=TOKEN, timeout_s=TIMEOUT_S, own_s=math.inf)
    try:
        await scorer.score(request(0))  # the scorer is then there
        yield scorer
    finally:
        await scorer.close()


async def _waiting(url: str, at_once: int, rounds: int) -> _Waits:
    seconds, lost = list[list[float]](), 0
    async with _asker(url) as scorer:

        async def one(number: int) -> float:
            nonlocal lost
            begun = time.monotonic()
            (found,) = await asyncio.gather(scorer.score(request(number)), return_exceptions=True)
            lost += not is_own(number, found)
            return time.monotonic() - begun

        for _ in range(rounds):
            seconds.append(await asyncio.gather(*(one(number) for number in range(at_once))))
    return _Waits(seconds, lost)


def _direct(pool: Any, groups: int, processes: int) -> float:
    """Groups a second of processes that only call the scorer."""
    pool.map(_call, range(processes), chunksize=1)  # they are then there
    begun = time.monotonic()
    pool.map(_call, range(groups), chunksize=max(1, groups // (4 * processes)))
    return groups / (time.monotonic() - begun)


def _call(number: int) -> None:
    group = request(number)
    scorer_load.computes(group.question, group.completions, group.data)


async def _computing(url: str, groups: int, processes: int) -> tuple[float, int]:
    """Groups a second through the service, with enough in hand, and how many are lost."""
    turns = asyncio.Semaphore(4 * processes)
    async with _asker(url) as scorer:

        async def one(number: int) -> bool:
            async with turns:
                (found,) = await asyncio.gather(
                    scorer.score(request(number)), return_exceptions=True
                )
            return is_own(number, found)

        await asyncio.gather(*(one(number) for number in range(8 * processes)))  # all processes
        begun = time.monotonic()
        found = await asyncio.gather(*(one(number) for number in range(groups)))
        return groups / (time.monotonic() - begun), found.count(False)


async def _killed(at_once: int) -> tuple[int, float, int]:
    """Groups in hand when the service dies, seconds to the last answer, and how many are lost."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process, url = await asyncio.to_thread(start, "waits", port)
    try:
        async with _asker(url) as scorer:
            asked = [asyncio.create_task(scorer.score(request(n))) for n in range(at_once)]
            await asyncio.sleep(KILL_AFTER_S)
            process.kill()
            begun, in_hand = time.monotonic(), sum(not each.done() for each in asked)
            process.join()
            process, _ = await asyncio.to_thread(start, "waits", port)
            found = await asyncio.gather(*asked, return_exceptions=True)
            back_s = time.monotonic() - begun
            return in_hand, back_s, sum(not is_own(n, each) for n, each in enumerate(found))
    finally:
        process.kill()
        process.join()
