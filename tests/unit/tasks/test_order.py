"""The order of training: passes over one source, shares of several."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sppo.errors import ConfigError
from sppo.tasks.order import BLOCK, Order, quotas
from sppo.tasks.question import Question, Questions


def questions(counts: list[int], weights: tuple[float, ...]) -> Questions:
    rows = [
        Question(source=f"{origin}.{i}", text=f"{origin}.{i}", data={}, origin=origin)
        for origin, count in enumerate(counts)
        for i in range(count)
    ]
    return Questions(train=tuple(rows), held_out=(), weights=weights)


def test_one_source_comes_in_passes_each_in_the_order_of_its_seed_and_number() -> None:
    order = Order(questions([50], (1.0,)), seed=7)
    for number in range(3):
        wanted = list(range(50))
        random.Random(f"7:{number}").shuffle(wanted)
        assert [order.position(50 * number + i) for i in range(50)] == wanted


def test_each_source_has_its_share_of_every_block_and_its_own_passes() -> None:
    # Given a small source of three times the weight of a large one
    order = Order(questions([100, 5000], (3.0, 1.0)), seed=1)
    found = [order.question(i) for i in range(3 * BLOCK)]
    # Then every block has the shares, mixed, and each source's prompts come equally often
    for block in range(3):
        origins = [q.origin for q in found[BLOCK * block : BLOCK * (block + 1)]]
        assert Counter(origins) == {0: 750, 1: 250}
        assert len(set(origins[:20])) == 2
    seen = Counter(q.text for q in found)
    assert {seen[f"0.{i}"] for i in range(100)} == {22, 23}
    assert {seen[q.text] for q in found if q.origin == 1} == {1}


def test_an_order_is_the_same_wherever_one_begins() -> None:
    found = questions([30, 40, 50], (1.0, 2.0, 0.5))
    straight = Order(found, seed=3)
    wanted = [straight.position(i) for i in range(2500)]
    fresh = Order(found, seed=3)
    assert [fresh.position(i) for i in (2400, 7, 1999, 2000)] == [
        wanted[i] for i in (2400, 7, 1999, 2000)
    ]
    other = Order(found, seed=4)
    assert [other.position(i) for i in range(50)] != wanted[:50]


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=8))
def test_shares_fill_a_block_and_are_rounded_by_less_than_one(weights: list[float]) -> None:
    found = quotas(weights)
    assert sum(found) == BLOCK
    for quota, weight in zip(found, weights, strict=True):
        assert abs(quota - BLOCK * weight / sum(weights)) < 1


def test_a_share_of_less_than_one_prompt_in_a_block_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.name\[1\]\.weight = 0\.0001: less than one"):
        quotas([1.0, 0.0001])
