"""The command line as a user meets it: real processes, exit codes, one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sppo import __version__

CLI = str(Path(sys.executable).with_name("sppo-cli"))


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CLI, *arguments], capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def test_help_and_version() -> None:
    assert __version__ in call("--version").stdout
    shown = call("--help").stdout
    assert all(word in shown for word in ("up", "status", "down", "Example"))
    assert "learner.lr=1e-6" in call("up", "--help").stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from sppo_cli.main import app\n"
        "try: app(['up', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'redis', 'fastapi'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "nope.toml"], ["nope.toml", "quickstart"]),
        (["up", "quickstart", "--set", "sampling.completions=1"], ["sampling.completions", "2 or more"]),
        (["up", "quickstart", "--set", "sampling.top_p=0.5"], ["sampling.top_p", "use 1.0"]),
        (["up", "quickstart", "--set", "learner.lrr=1"], ["learner.lrr"]),
        (["up", "quickstart", "--set", "model.name=/no/such/model"], ["model.name", "/no/such/model"]),
        (["up", "quickstart", "--set", "task.name=reasoning-gym:nope"], ["task.name", "nope"]),
        (["up", "quickstart", "--set", "scorer.name=nope"], ["scorer.name", "last-number"]),
        (["up", "quickstart", "--set", "task.max_prompt_tokens=10"], ["task.max_prompt_tokens = 10"]),
        (["up", "quickstart", "--set", "broker.url=redis://127.0.0.1:1"], ["broker.url", "is the server running"]),
        (["up", "quickstart", "--run-dir", "/proc/nope"], ["--run-dir /proc/nope", "cannot be written"]),
        (["status", "nowhere"], ["nowhere", "holds no run"]),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    error = done.stderr.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert all(word in error for word in words), error


def test_a_configuration_error_answers_quickly(tmp_path: Path) -> None:
    # A bound with room for a loaded machine; the test above shows why it is quick: nothing heavy is imported.
    started = time.monotonic()
    done = subprocess.run(
        [CLI, "up", "quickstart", "--set", "learner.lr=0"], capture_output=True, cwd=tmp_path, check=False,
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 2
    assert time.monotonic() - started < 5
