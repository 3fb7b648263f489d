"""Whom an answer meets in an evaluation: the base model's, or itself before that is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sppo.types import Answer, Completion, Ticket, Version, VersionSpan

BASE = Version(epoch="base", n=0)


def opponents(ticket: Ticket, completions: Sequence[Completion]) -> list[Completion]:
    """What the scorer gets beside these completions of a ticket."""
    if not ticket.paired:
        return []
    return list(completions) if ticket.against is None else [_completion(ticket.against)]


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
