"""A scorer's process that has its next group before it has answered for the last.

Between an answer and the next group lie the service, and on a busy machine whatever else wants the
core: milliseconds, in which a scorer that computes for twenty has nothing to do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from sppo.scorer.process import ScorerProcess

QUICK_S = 0.1
"""Of a call behind which a group may wait, rather than the process for it."""


class Behind(Exception):  # noqa: N818 - caught in the pool
    """This group waited behind a call that takes its time: another process may be free."""


def give(processes: Iterable[ScorerProcess], waiting: deque[asyncio.Future[ScorerProcess]]) -> None:
    """Give each process whose calls are quick one of those who wait, beside the group that it
    scores; it is given back, by Behind, if that group takes longer.
    """
    for process in processes:
        if waiting and process.in_hand == process.slots == 1 and _is_quick(process):
            process.in_hand += 1
            waiting.popleft().set_result(process)
            asyncio.get_running_loop().call_later(QUICK_S, _give_back, process)


def _is_quick(process: ScorerProcess) -> bool:
    """Whether its calls so far were, in the mean, and the one in hand has not been long."""
    quick = process.answered > 0 and process.busy_s < QUICK_S * process.answered
    return quick and process.batches.in_call_s() < QUICK_S


def _give_back(process: ScorerProcess) -> None:
    if process.batches.in_call_s() >= QUICK_S:
        for call in process.batches.waiting:
            call.answer.set_exception(Behind())
