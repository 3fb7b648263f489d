"""Objectives by name, and what is said of a user's own that does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sppo.config.objectives import READS
from sppo.errors import ConfigError
from sppo.learner.objectives import OBJECTIVES, check_scores, make
from sppo.learner.objectives.sppo import Sppo
from tests.unit.learner.objectives import makers

MODULE = """
class Whole:
    scope, needs = "group", frozenset({"anchor"})
    def __init__(self, settings): self.settings = settings
    def select(self, scored): ...
    def loss(self, batch): ...
    def summary(self, stats): return {}

class NoLoss(Whole):
    loss = property()
    del loss

class Half:
    scope, needs = "group", frozenset()
    def __init__(self, settings): ...
    def summary(self, stats): return {}

class WrongScope(Whole):
    scope = "token"

class WrongNeeds(Whole):
    needs = {"critic"}

class Breaks(Whole):
    def __init__(self, settings): raise KeyError("alpha")

NUMBER = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_objectives.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_objectives", raising=False)


def test_names_are_those_that_the_configuration_knows() -> None:
    assert set(OBJECTIVES) == set(READS)
    for name in OBJECTIVES:
        assert make(makers.settings(name=name)).scope in ("completion", "group", "batch")
    assert isinstance(make(makers.settings()), Sppo)


def test_a_users_own_is_made_with_the_settings() -> None:
    settings = makers.settings(name="my_objectives:Whole", params={"margin": 2})
    made: Any = make(settings)
    assert made.settings.params == {"margin": 2}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.at_all:Thing", "ModuleNotFoundError: No module named 'nowhere'"),
        ("my_objectives:Missing", "has no attribute 'Missing'"),
        ("my_objectives:NUMBER", "NUMBER is a int, not a class"),
        ("my_objectives:Half", "the class has no select, loss; see Objective in"),
        ("my_objectives:WrongScope", "scope is 'token', not one of completion, group, batch"),
        ("my_objectives:WrongNeeds", "needs is {'critic'}, not a set of some of anchor, reference"),
        ("my_objectives:Breaks", "KeyError: 'alpha'"),
    ],
)
def test_one_that_does_not_fit_is_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make(makers.settings(name=name))
    said = str(raised.value)
    assert said.startswith(f"objective.name = {name!r}: ")
    assert words in said
    assert "\n" not in said


def test_rewards_for_an_objective_that_compares_are_refused_with_the_mend() -> None:
    settings = makers.settings(target="half")
    with pytest.raises(ConfigError, match=r"'sppo' needs preferences .* objective\.link"):
        check_scores(make(settings), settings, compared=False)
    check_scores(make(settings), settings, compared=True)
    linked = makers.settings(target="half", link="bradley-terry")
    check_scores(make(linked), linked, compared=False)
