"""Where there is nothing to watch, and where there is no terminal; asking a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo import asked
from sppo.errors import ConfigError
from tests.unit.top import runs


def refused(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 2
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.mark.parametrize("name", ["none", "empty"])
def test_a_directory_that_is_none_or_holds_no_run_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refused("top", str(tmp_path / name))


def test_without_a_terminal_it_names_what_needs_none(tmp_path: Path) -> None:
    runs.going_on(tmp_path)
    assert "sppo-cli status" in refused("top", str(tmp_path))


def test_a_run_is_asked_by_a_command(tmp_path: Path) -> None:
    runs.going_on(tmp_path)
    result = CliRunner().invoke(app, ["ask", "pause", "--run-dir", str(tmp_path)])
    assert result.output.startswith("after the batch at hand the learner takes no other")
    assert asked.standing(tmp_path) == ["pause"]
    assert "ask for pause, resume" in refused("ask", "dance", "--run-dir", str(tmp_path))
