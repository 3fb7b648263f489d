"""Whether a question comes through the broker, and through a scorer's request, as it is."""

from __future__ import annotations

import json

from sppo.errors import BadFrame
from sppo.tasks.question import Question
from sppo.tasks.rows import Unusable
from sppo.transport import codec
from sppo.types import SamplingParams, Ticket

_JSON = json.JSONEncoder(allow_nan=False)
MAX_TICKET = 16 * 2**20
"""Bytes of one ticket: a prompt and its row."""
_SAMPLING = SamplingParams(completions=1, temperature=1.0, max_tokens=1, seed=0)


def check(question: Question) -> None:
    """What the broker carries to a generator must be what was read, and so must the body of a
    scorer's request. Raises Unusable.
    """
    ticket = Ticket(
        uid="train-000000000",
        stream="train",
        prompt_ids=(),  # token ids always can
        question=question.text,
        scorer_data=question.data,
        sampling=_SAMPLING,
        min_version=0,
        messages=question.messages,
    )
    try:
        packed = codec.pack_ticket(ticket)
        same = codec.unpack_ticket(packed) == ticket
        _JSON.encode(question.data)
    except (ValueError, OverflowError, TypeError, RecursionError, BadFrame) as error:
        raise Unusable(f"cannot be sent to a scorer: {error}") from error
    if not same:
        raise Unusable("does not come back from the broker as it was sent")
    if len(packed) > MAX_TICKET:
        raise Unusable(
            f"{len(packed):,} bytes with all its columns, and {MAX_TICKET:,} is the most; leave "
            "out columns that the scorer does not need"
        )
