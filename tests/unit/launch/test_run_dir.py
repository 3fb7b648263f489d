"""The run directory: whom it accepts, what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError
from sppo.launch import run_dir as run_dirs
from sppo.metrics import JsonLines


def begin(run_dir: Path, *overrides: str) -> str:
    """What `up` does with the directory."""
    run = config.load("quickstart", list(overrides))
    with run_dirs.locked(run_dir):
        run_dirs.check(run_dir, run)
        return run_dirs.claim(run_dir, run)


def test_the_same_configuration_may_come_back_with_more_steps(tmp_path: Path) -> None:
    key = begin(tmp_path)
    JsonLines(tmp_path / "metrics.jsonl").append({"step": 1})
    assert begin(tmp_path, "learner.steps=120") == key
    assert "steps = 120" in (tmp_path / "config.toml").read_text()


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    begin(tmp_path)
    JsonLines(tmp_path / "metrics.jsonl").append({"step": 1})
    with pytest.raises(ConfigError, match=r"optimizer\.lr was .*, now 0\.0001.*another directory"):
        begin(tmp_path, "optimizer.lr=1e-4")


def test_a_run_of_the_version_before_is_refused_with_the_way_on(tmp_path: Path) -> None:
    # Given a directory whose settings have the names of sppo 0.1
    begin(tmp_path)
    JsonLines(tmp_path / "metrics.jsonl").append({"step": 1})
    (tmp_path / "config.toml").write_text('name = "quickstart"\n[learner]\nlr = 1e-5\neta = 1.0\n')
    # Then it is not resumed
    with pytest.raises(
        ConfigError, match=r"begun by sppo 0\.1 \(learner\.eta is now objective\.eta\).*/export'"
    ):
        begin(tmp_path)


def test_settings_may_be_mended_as_long_as_nothing_was_trained(tmp_path: Path) -> None:
    key = begin(tmp_path)
    assert (
        begin(tmp_path, "optimizer.lr=1e-4") != key
    )  # other keys: no group of the old settings can be trained


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--run-dir .*cannot be written"):
        begin(tmp_path / "file" / "run")


def test_a_run_that_is_up_is_seen_and_one_that_died_is_not(tmp_path: Path) -> None:
    begin(tmp_path)
    run_dirs.write_status(tmp_path, {"phase": "training"})
    assert run_dirs.running(tmp_path) == os.getpid()
    with run_dirs.locked(tmp_path), pytest.raises(ConfigError, match="sppo-cli down"):
        begin(tmp_path)
    code = (
        "from pathlib import Path; from sppo.launch import run_dir as r; "
        f"r.write_status(Path({str(tmp_path)!r}), {{}})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert run_dirs.running(tmp_path) is None
    assert run_dirs.describe(tmp_path)["state"] == "stopped"
    assert run_dirs.end(tmp_path) is False


def test_who_ends_a_run_hears_what_it_waits_for_as_long_as_there_is_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a supervisor that shows what it is at for longer than the time-out, and then is silent
    clock, said = [0.0], list[str]()
    monkeypatch.setattr(run_dirs, "running", lambda _: 1)
    monkeypatch.setattr(run_dirs.os, "kill", lambda *_: None)
    monkeypatch.setattr(run_dirs.time, "monotonic", lambda: clock[0])

    def sleep(_: float) -> None:
        clock[0] += 60
        if clock[0] == 180:  # gone for a moment
            (tmp_path / "status.json").unlink()
        elif clock[0] <= 300:
            state = {"phase": f"writing {clock[0]:.0f}", "updated": clock[0]}
            (tmp_path / "status.json").write_text(json.dumps(state))

    monkeypatch.setattr(run_dirs.time, "sleep", sleep)
    # Then whoever asked it to stop hears that, and goes once it was silent for so long
    with pytest.raises(ConfigError, match=r"process 1 has shown no sign of life for 180 s"):
        run_dirs.end(tmp_path, said.append)
    assert said == [f"writing {at}" for at in (60, 120, 240, 300)]
    assert clock[0] == 540


def test_metrics_of_a_line_that_was_given_up_are_dropped(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        lines.append({"step": step})
    with lines.path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    lines.keep_until(3)
    assert [r["step"] for r in lines.read()] == [1, 2, 3]


def test_other_data_begins_anew_under_other_keys(tmp_path: Path) -> None:
    key = begin(tmp_path)
    run = config.load("quickstart")
    assert run_dirs.claim(tmp_path, run) == key
    assert run_dirs.claim(tmp_path, run, anew=True) != key


def test_what_a_judge_answers_is_kept_in_the_directory_unless_a_file_is_named(
    tmp_path: Path,
) -> None:
    run = config.load("quickstart")
    found = run_dirs.with_cache(tmp_path, run)
    assert found.scorer.judge.cache == str(tmp_path.resolve() / "judge.sqlite3")
    assert found.model_copy(update={"scorer": run.scorer}) == run
    named = config.load("quickstart", ["scorer.judge.cache=mine"])
    assert run_dirs.with_cache(tmp_path, named) is named
