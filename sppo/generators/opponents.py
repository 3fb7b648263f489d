"""Whom an answer meets in an evaluation: the base model's, or itself before that is known; and
what a scorer that compares says of both orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sppo.types import Answer, Completion, Scores, Ticket, Version, VersionSpan

BASE = Version(epoch="base", n=0)


def opponents(ticket: Ticket, completions: Sequence[Completion]) -> list[Completion]:
    """What the scorer gets beside these completions of a ticket."""
    if not ticket.paired:
        return []
    return list(completions) if ticket.against is None else [_completion(ticket.against)]


def both_orders(first: Scores, second: Scores, ours: int) -> Scores:
    """The mean of preferences for `ours` answers before the others, and for the others before
    them, in the order of `first`: of a pair that one order has not compared, the other's.
    """
    assert first.preferences is not None
    if second.preferences is None:
        return first
    size = len(first.preferences)
    places = np.roll(np.arange(size), ours)  # of each answer of `first` in `second`
    turned = second.preferences[np.ix_(places, places)]
    mean = (first.preferences + turned) / 2
    known = np.where(np.isnan(first.preferences), turned, first.preferences)
    return replace(first, preferences=np.where(np.isnan(mean), known, mean).astype(np.float32))


def _completion(answer: Answer) -> Completion:
    """As if it had been sampled, but for its log-probs, which nobody asks for."""
    size = len(answer.token_ids)
    return Completion(
        token_ids=np.asarray(answer.token_ids, np.int32),
        behavior_logprobs=np.zeros(size, np.float32),
        spans=(VersionSpan(version=BASE, start=0, end=size),),
        finish_reason=answer.finish_reason,
        text=answer.text,
    )
