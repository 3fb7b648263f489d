"""Where a rank is."""

from __future__ import annotations

import os

import pytest

from sppo.learner import where
from sppo.learner.where import Where


def test_it_says_what_it_does_and_for_how_long_it_has_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [10.0]
    monkeypatch.setattr(where.time, "monotonic", lambda: now[0])
    own = Where()
    now[0] += 5
    assert (own.post()["still"], own.post()["patient"]) == (5.0, True)
    own.at("training after step 3")
    now[0] += 2
    own.come()
    now[0] += 1
    post = own.post()
    assert (post["doing"], post["patient"], post["passed"]) == ("training after step 3", False, 1)
    assert (post["still"], post["pid"]) == (1.0, os.getpid())


def test_an_order_that_reads_or_writes_may_take_long_and_so_may_what_is_slow() -> None:
    own = Where()
    own.order("save")
    assert (own.doing, own.patient) == ("at the order 'save'", True)
    own.order("train")
    with own.slow("fetching groups"):
        assert (own.doing, own.patient) == ("fetching groups", True)
    assert (own.doing, own.patient) == ("at the order 'train'", False)
