"""What crosses a process boundary: labels of versions, what a group says of itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sppo.types import Member, Version, digest
from tests import makers


def test_a_versions_label_is_read_back_whatever_its_epoch() -> None:
    for version in (Version(epoch="e", n=0), Version(epoch="a:b", n=12)):
        assert Version.parse(str(version)) == version


@pytest.mark.parametrize("label", ["", "7", ":7", "e:", "e:x"])
def test_what_is_no_label_is_refused(label: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - int() words it for two of them
        Version.parse(label)


def test_a_group_has_signal_where_the_scorer_told_two_completions_apart() -> None:
    group = makers.group()
    equal = np.zeros(len(group.completions), np.float32)
    assert not dataclasses.replace(group, rewards=equal).has_signal
    apart = equal.copy()
    apart[-1] = 1
    assert dataclasses.replace(group, rewards=apart).has_signal
    even = np.full((2, 2), 0.5, np.float32)
    assert not dataclasses.replace(group, rewards=None, preferences=even).has_signal
    prefers = np.array([[0.5, 0.9], [0.1, 0.5]], np.float32)
    assert dataclasses.replace(group, rewards=None, preferences=prefers).has_signal


def test_pairs_that_were_not_compared_tell_nothing_and_who_met_nobody_is_counted() -> None:
    nan = float("nan")
    even = np.array([[0.5, 0.5, nan], [0.5, 0.5, nan], [nan, nan, 0.5]], np.float32)
    group = dataclasses.replace(makers.group(size=3), rewards=None, preferences=even)
    assert not group.has_signal
    assert group.unmet == 1
    assert makers.group().unmet == 0
    assert group.only([2]).unmet == 0


def test_a_group_counts_its_tokens_and_names_its_versions() -> None:
    group = makers.group()
    assert group.tokens == sum(len(c.token_ids) for c in group.completions)
    assert group.versions() == {s.version for c in group.completions for s in c.spans}


def test_a_digest_keeps_its_parts_apart() -> None:
    assert digest("a", "b") != digest("ab")
    assert len(digest("a")) == 16


def test_a_member_is_named_with_its_machine() -> None:
    assert Member(name="generator-0", role="generator").where == "generator-0"
    assert Member(name="a", role="scorer", host="west").where == "a on west"
