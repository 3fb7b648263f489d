"""The run directory: whom it accepts, what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError
from sppo.launch import run_dir as run_dirs
from sppo.metrics import JsonLines


def test_the_same_configuration_may_come_back_with_more_steps(tmp_path: Path) -> None:
    run_dirs.prepare(tmp_path, config.load("quickstart"))
    run_dirs.prepare(tmp_path, config.load("quickstart", ["learner.steps=120"]))
    assert "steps = 120" in (tmp_path / "config.toml").read_text()


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    run_dirs.prepare(tmp_path, config.load("quickstart"))
    with pytest.raises(ConfigError, match=r"learner\.lr was 1e-05, now 0\.0001.*another directory"):
        run_dirs.prepare(tmp_path, config.load("quickstart", ["learner.lr=1e-4"]))


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--run-dir .*cannot be written"):
        run_dirs.prepare(tmp_path / "file" / "run", config.load("quickstart"))


def test_a_run_that_is_up_is_seen_and_one_that_died_is_not(tmp_path: Path) -> None:
    run_dirs.prepare(tmp_path, config.load("quickstart"))
    run_dirs.write_status(tmp_path, {"phase": "training"})
    assert run_dirs.running(tmp_path) == os.getpid()
    with pytest.raises(ConfigError, match="sppo-cli down"):
        run_dirs.prepare(tmp_path, config.load("quickstart"))
    code = (
        f"from pathlib import Path; from sppo.launch import run_dir as r; r.write_status(Path({str(tmp_path)!r}), {{}})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert run_dirs.running(tmp_path) is None
    assert run_dirs.describe(tmp_path)["state"] == "stopped"
    assert run_dirs.end(tmp_path) is False


def test_metrics_of_a_line_that_was_given_up_are_dropped(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        lines.append({"step": step})
    with lines.path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    lines.keep_until(3)
    assert [r["step"] for r in lines.read()] == [1, 2, 3]
