"""Rows that reasoning-gym makes."""

from __future__ import annotations

import importlib.util

import pytest

from sppo.errors import ConfigError
from sppo.tasks import procedural
from sppo.tasks.rows import Tally


def tally() -> Tally:
    return Tally(setting="task.name = 'reasoning-gym:x'")


def test_entries_are_named_and_the_same_each_time() -> None:
    counted = tally()
    found = procedural.read("chain_sum", {"min_terms": 2, "max_terms": 2}, 5, counted)
    again = procedural.read("chain_sum", {"min_terms": 2, "max_terms": 2}, 5, tally())
    assert found == again
    assert (len(found), counted.rows) == (5, 5)
    assert found[4].where == "chain_sum, entry 4"


def test_an_argument_that_a_dataset_does_not_take_is_named() -> None:
    with pytest.raises(ConfigError, match=r"task\.params = \{'no_such': 1\}: "):
        procedural.read("chain_sum", {"no_such": 1}, 5, tally())


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="needs the package reasoning-gym"):
        procedural.read("chain_sum", {}, 5, tally())
