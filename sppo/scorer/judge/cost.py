"""What a judge is asked for: how many calls a group makes."""

from __future__ import annotations

from sppo.config import JudgeConfig
from sppo.scorer import comparisons


def calls(settings: JudgeConfig, k: int) -> int:
    """Of a group of `k` completions, no two of them equal and none judged before."""
    orders = 1 + settings.both_orders
    if settings.mode == "rating":
        asked = k
    elif settings.compare == "reference":
        asked = orders * k
    else:
        pairs = comparisons.pairs(settings.compare, k, opponents=settings.opponents, uid="")
        asked = orders * len(pairs)
    return settings.samples * asked
