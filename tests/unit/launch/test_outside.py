from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError
from sppo.launch import outside, trackers
from sppo.launch.figures import Figures


def test_both_are_there_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").mkdir()
    program = [sys.executable, "-Sc", "import sys; print('hello', flush=True); sys.stdin.read()"]
    monkeypatch.setattr(trackers, "command", lambda name, run_dir: program)
    loaded = config.load("quickstart", ['track.to=["wandb"]', "metrics.address=127.0.0.1:0"])
    said: list[str] = []
    with outside.shown(loaded, tmp_path, Figures(loaded), said.append):
        assert json.loads((tmp_path / "prometheus.json").read_text())[0]["labels"]["run"]
    assert said[0].startswith("wandb: hello")


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outside.check(config.load("quickstart"))
    for settings in ('track.to=["wandb"]', "metrics.address=127.0.0.1:0"):
        with pytest.raises(ConfigError, match="is not installed"):
            outside.check(config.load("quickstart", [settings]))
