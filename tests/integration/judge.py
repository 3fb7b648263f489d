"""A user's judge, with what users' scorers bring along; imported by a process of its own, so it is
light.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sppo.scorer.rules import last_number


def judge(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[Any]:
    """Rock, paper, scissors by the last digit of the length.

    It contradicts itself about answers that end in 7, and its process dies of those that end in 9.
    It takes its time, so that a run is stopped before it is over.
    """
    signal.alarm(20)  # a time-out of its own, as graders have: it needs the main thread
    try:
        time.sleep(0.5)
        if len(completions) == 1:
            return last_number(question, completions, data)
        if str(data["answer"]).endswith("9"):
            os._exit(9)
        sign = [len(c) % 3 for c in completions]
        table = [[(0.5, 0.8, 0.2)[(b - a) % 3] for b in sign] for a in sign]
        if str(data["answer"]).endswith("7"):
            table[0][1] = 1.5
        return table
    finally:
        signal.alarm(0)
