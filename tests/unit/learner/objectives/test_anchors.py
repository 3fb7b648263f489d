"""Which weights the anchor is at a step."""

from __future__ import annotations

import pytest

from sppo.learner.objectives import anchors


def test_proximal_and_behavior_publish_after_every_batch() -> None:
    for name, source in (("proximal", "policy"), ("behavior", "behavior")):
        anchor = anchors.make(name, 4)
        assert anchor.source(7, 3) == source
        assert anchor.publishes(7, 8)
        assert not anchor.keeps


def test_an_iteration_keeps_its_snapshot_until_it_is_renewed() -> None:
    anchor = anchors.make("iteration", 4)
    assert anchor.keeps
    assert [anchor.publishes(n, n + 1) for n in range(2, 5)] == [False, True, False]
    assert anchor.publishes(2, 9)
    assert anchor.source(4, 4) == "policy"  # it was taken just now
    assert anchor.source(5, 4) == "snapshot"


def test_an_unknown_one_is_named() -> None:
    with pytest.raises(ValueError, match="'nope': there are proximal, behavior, iteration"):
        anchors.make("nope", 4)
