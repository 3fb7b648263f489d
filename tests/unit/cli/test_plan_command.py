"""`sppo-cli plan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sppo_cli import commands, plan_command
from typer.testing import CliRunner

from sppo import config
from sppo.errors import ConfigError


def test_a_preset_is_planned_in_words_and_as_json() -> None:
    said = CliRunner().invoke(commands.app, ["plan", "math-7b", "--gpu", "h100"])
    assert said.exit_code == 0
    assert "learner, rank 0 of 3" in said.stdout
    found = CliRunner().invoke(commands.app, ["plan", "math-7b", "--gpu", "h100", "--json"])
    assert json.loads(found.stdout)["fits"]


def test_what_does_not_fit_is_shown_and_refused() -> None:
    told = CliRunner().invoke(
        commands.app, ["plan", "math-7b", "--gpu", "h100", "--set", "learner.ranks=1"]
    )
    assert "key-value cache" in told.stdout
    assert isinstance(told.exception, ConfigError)
    assert "set learner.ranks = " in str(told.exception)
    assert "\n" not in str(told.exception)


def test_nothing_is_refused_without_a_reason() -> None:
    plan_command.refuse([])
    with pytest.raises(ConfigError, match="this does not fit: a; b"):
        plan_command.refuse(["a", "b"])


def dry(folder: Path, *rows: dict[str, str]) -> None:
    """A dry run on these rows, of a model that nobody knows."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    changes = ["model.name=nobody/knows-this", f"task.name=jsonl:{file}", "task.held_out=0",
               "task.prompt={question}"]  # fmt: skip
    plan_command.dry_run(config.load("quickstart", changes, environment=False), Path("runs/x"))


def test_a_dry_run_refuses_rows_as_a_run_would_and_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"rows.jsonl:1.*there are question, solution"):
        dry(tmp_path, {"question": "1 + 1?", "solution": "2"})
    dry(tmp_path, {"question": "1 + 1?", "answer": "2"}, {"question": "1 + 2?", "answer": "3"})
    assert "data              2 rows: 2 prompts to train" in capsys.readouterr().out


def test_a_dry_run_refuses_an_argument_that_the_engine_has_not() -> None:
    changes = ["generator.vllm.enforce_eagre=true"]
    with pytest.raises(ConfigError, match=r"did you mean enforce_eager\?"):
        plan_command.dry_run(config.load("quickstart", changes, environment=False), Path("runs/x"))


def test_a_dry_run_goes_on_where_a_model_cannot_be_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry(tmp_path, {"question": "1 + 1?", "answer": "2"})
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("run directory")
    assert said[-1].startswith("not counted: model.name = 'nobody/knows-this': its config.json")
