"""What a scorer says of completions is small and plain JSON when it travels."""

from __future__ import annotations

import math

from sppo.scorer.details import MOST, bounded


def test_what_is_plain_json_stays() -> None:
    details = [{"verdict": "A", "p": 0.25, "calls": [1, None]}, {}]
    assert bounded(details) == tuple(details)
    assert bounded(None) is None


def test_what_is_no_json_is_made_so() -> None:
    assert bounded([{"p": math.nan, "q": math.inf, "path": {1}, (1, 2): "key"}]) == (
        {"p": None, "q": None, "path": "{1}"},
    )


def test_a_long_one_is_cut() -> None:
    (found,) = bounded([{"reasoning": "x" * 3 * MOST}]) or ()
    assert list(found) == ["cut"]
    assert len(found["cut"]) == MOST
    assert found["cut"].startswith('{"reasoning": "xxx')
