"""Figures against their bars."""

from __future__ import annotations

from sppo.bench.checks import at_least, at_most, unjudged


def test_a_bar_itself_is_good_enough() -> None:
    assert at_most("a", 2.0, 2.0, "s").ok
    assert not at_most("a", 2.1, 2.0, "s").ok
    assert at_least("a", 2.0, 2.0, "s").ok
    assert not at_least("a", 1.9, 2.0, "s").ok


def test_not_a_number_is_never_good_enough() -> None:
    assert not at_most("a", float("nan"), 1.0, "s").ok
    assert not at_least("a", float("nan"), 1.0, "s").ok


def test_what_is_not_judged_keeps_its_figure() -> None:
    check = unjudged(at_most("a", 3.0, 2.0, "s"))
    assert (check.value, check.bar, check.ok) == (3.0, 2.0, None)
