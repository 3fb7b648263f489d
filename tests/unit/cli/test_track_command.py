from __future__ import annotations

from pathlib import Path

import pytest
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo.errors import ConfigError
from sppo.track import process


def test_a_run_that_is_there_is_written_to_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('name = "a"\n')
    monkeypatch.setattr(process.Work, "run", lambda self: self._name != "wandb")
    run = CliRunner().invoke
    done = run(app, ["track", str(tmp_path), "--to", "tensorboard"])
    assert done.output == f"tensorboard has all of {tmp_path}\n"
    failed = run(app, ["track", str(tmp_path), "--to", "tensorboard", "--to", "wandb"])
    log = tmp_path / "logs" / "track-wandb.log"
    assert str(failed.exception) == f"wandb has not got all of {tmp_path}; details are in {log}"


def test_it_needs_a_run_and_a_name(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["track", str(tmp_path), "--to", "tensorboard"]).exception
    assert isinstance(missing, ConfigError)
    assert "there is no run here" in str(missing)
    wrong = CliRunner().invoke(app, ["track", str(tmp_path), "--to", "tensorbord"]).exception
    assert "there are tensorboard" in str(wrong)
