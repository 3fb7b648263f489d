"""`sppo-cli plan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sppo_cli import main, plan_command
from typer.testing import CliRunner

from sppo import config
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


def test_a_dry_run_goes_on_where_a_model_cannot_be_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = config.load("quickstart", ["model.name=nobody/knows-this"], environment=False)
    plan_command.dry_run(given, Path("runs/x"))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("run directory")
    assert said[-1].startswith("not counted: model.name = 'nobody/knows-this': its config.json")
