"""`sppo-cli report`."""

from __future__ import annotations

from pathlib import Path

import pytest
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo.errors import ConfigError
from sppo.report import page
from tests import written_runs


def test_the_file_stands_in_the_first_run_or_where_it_is_wanted(tmp_path: Path) -> None:
    runs = [written_runs.make(tmp_path / name, steps=2) for name in "ab"]
    names = [str(run) for run in runs]
    done = CliRunner().invoke(app, ["report", *names])
    assert (done.exit_code, done.output) == (0, f"{runs[0] / 'report.html'} (0.1 MB)\n")
    out = tmp_path / "both.html"
    assert CliRunner().invoke(app, ["report", *names, "--out", str(out)]).exit_code == 0
    assert out.read_text(encoding="utf-8") == (runs[0] / "report.html").read_text(encoding="utf-8")


def test_a_page_above_its_bound_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    run = written_runs.make(tmp_path / "a", steps=2)
    assert "name fewer runs" in CliRunner().invoke(app, ["report", str(run)]).output


def test_what_is_no_run_is_the_users_mistake(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.exit_code == 2
    assert len(str(done.exception).splitlines()) == 1
