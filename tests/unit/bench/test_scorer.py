"""How the figures of a scorer's service are judged, and what counts as a group's own answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sppo.bench import scorer, scorer_load
from sppo.errors import ScorerError
from sppo.types import Scores

GOOD = scorer.Measured(
    at_once=200, waits_s=0.1, p50_s=0.15, p99_s=0.2, lost=0, processes=2, direct_per_s=100.0,
    served_per_s=95.0, killed_in_hand=200, back_s=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("measured", "misses"),
    [
        (GOOD, set()),
        (replace(GOOD, p99_s=0.31), {"scorer_p99"}),
        (replace(GOOD, served_per_s=89.0), {"scorer_vs_direct"}),
        (replace(GOOD, lost=1), {"scorer_lost"}),
    ],
)
def test_each_figure_has_its_bar(measured: scorer.Measured, misses: set[str]) -> None:
    assert {check.name for check in scorer.checks(measured) if not check.ok} == misses


def test_the_answer_of_another_group_is_not_a_group_s_own() -> None:
    scores = Scores(rewards=np.asarray(scorer_load.own(3, scorer.COMPLETIONS), np.float32))
    assert scorer.is_own(3, scores)
    assert not scorer.is_own(4, scores)
    assert not scorer.is_own(3, ScorerError("late"))


def test_the_table_says_all_of_it() -> None:
    text = "\n".join(scorer.table(GOOD))
    for words in ("99 of 100 within 0.200 s", ": 0.950, 1.1 ms", "200 groups in hand", "0 groups"):
        assert words in text
