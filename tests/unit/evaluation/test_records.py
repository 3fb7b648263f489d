"""Records of evaluations inside a run, and their one line."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sppo.evaluation import records, statistics
from sppo.types import Group
from tests import makers


def rewarded(reward: float) -> Group:
    return replace(makers.group("eval-0", size=1), rewards=np.asarray([reward], np.float32))


def compared(chance: float) -> Group:
    return makers.group("eval-0", preferences=[[0.5, chance], [1 - chance, 0.5]])


def test_rewards_make_an_accuracy() -> None:
    found = records.of_groups(3, [rewarded(1.0), rewarded(0.5)], dead=1)
    assert found == {
        "step": 3, "accuracy": 0.5, "reward_mean": 0.75, "win_rate": None,
        "interval": list(statistics.wilson(0.5, 2)), "n": 2, "dead": 1, "length_mean": 1.0,
    }  # fmt: skip
    assert records.describe(found) == "held-out accuracy after step 3: 0.500 of 2 [0.095, 0.905]"
    assert records.short(found) == "held-out 0.500"


def test_preferences_make_a_win_rate() -> None:
    chances = [1.0, 1.0, 0.5, 0.25, math.nan]
    found = records.of_groups(3, [compared(p) for p in chances], dead=0)
    assert found is not None
    assert found["accuracy"] is None
    assert found["win_rate"] == pytest.approx(0.6875)
    assert found["interval"] == list(statistics.wilson(0.6875, 4))
    assert (found["wins"], found["ties"], found["losses"], found["unread"]) == (2, 1, 1, 1)
    assert (found["n"], found["length_mean"], found["base_length_mean"]) == (4, 1.0, 2.0)
    assert records.describe(found).startswith(
        "held-out win rate against the base model after step 3: 0.688 of 4 ["
    )
    assert records.short(found).startswith("wins 0.688 [0.2")


def test_nothing_compared_makes_no_record() -> None:
    assert records.of_groups(3, [compared(math.nan)], dead=0) is None


def test_a_record_of_an_older_run_is_still_said() -> None:
    old = {"step": 2, "accuracy": 0.25, "n": 8}
    assert records.describe(old) == "held-out accuracy after step 2: 0.250 of 8"
    assert records.short({}) == ""
