"""`sppo-cli plan`."""

from __future__ import annotations

import json

import pytest
from sppo_cli import main, plan_command
from typer.testing import CliRunner

from sppo.errors import ConfigError


def test_a_preset_is_planned_in_words_and_as_json() -> None:
    said = CliRunner().invoke(main.app, ["plan", "math-7b", "--gpu", "h100"])
    assert said.exit_code == 0
    assert "learner, rank 0 of 3" in said.stdout
    found = CliRunner().invoke(main.app, ["plan", "math-7b", "--gpu", "h100", "--json"])
    assert json.loads(found.stdout)["fits"]


def test_what_does_not_fit_is_shown_and_refused() -> None:
    told = CliRunner().invoke(
        main.app, ["plan", "math-7b", "--gpu", "h100", "--set", "learner.ranks=1"]
    )
    assert "key-value cache" in told.stdout
    assert isinstance(told.exception, ConfigError)
    assert "set learner.ranks = " in str(told.exception)
    assert "\n" not in str(told.exception)


def test_nothing_is_refused_without_a_reason() -> None:
    plan_command.refuse([])
    with pytest.raises(ConfigError, match="this does not fit: a; b"):
        plan_command.refuse(["a", "b"])
