"""What a scorer says of completions besides their scores, made small and plain enough to travel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

MOST = 4096
"""Characters of JSON for each completion."""


def bounded(
    details: Sequence[Mapping[str, Any]] | None,
) -> tuple[dict[str, Any], ...] | None:
    """[K] the details as plain JSON: what is no JSON as its text, a number that is not finite as
    null. Of one that is longer than `MOST` the beginning is kept, under "cut".
    """
    return None if details is None else tuple(_bounded(each) for each in details)


def _bounded(details: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(dict(details), default=str, skipkeys=True)
    if len(text) > MOST:
        return {"cut": text[:MOST]}
    found: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return found
