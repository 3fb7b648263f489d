"""`sppo-cli eval` as a user runs it, with the real model: vLLM against the base, Transformers
against a file, and an interrupt.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sppo import models
from sppo.config import ModelConfig
from tests.integration.conftest import processes_below

CLI = str(Path(sys.executable).with_name("sppo-cli"))
SMALL = ["--n=4", "--set=sampling.max_tokens=24", "--set=compute=float32"]

pytestmark = pytest.mark.timeout(180)


def evaluated(*options: str) -> dict[str, Any]:
    command = [CLI, "eval", *options, *SMALL, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_folder_is_evaluated_against_the_base_and_against_a_file(tmp_path: Path) -> None:
    # Given the default model as a folder
    folder = models.resolve(ModelConfig(name=models.PACKAGED))
    items = tmp_path / "items.jsonl"
    # When vLLM answers, and the base is itself
    found = evaluated(folder, "--task=quickstart", "--against=base", f"--out={items}")
    # Then nobody wins, and everything is written down
    assert (found["n"], found["failed"], found["k"], found["temperature"]) == (4, 0, 1, 0)
    low, high = found["interval"]
    assert low <= found["accuracy"] <= high
    assert (found["against"]["win_rate"], found["against"]["ties"]) == (0.5, 4)
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    assert [len(row["completions"]) for row in rows] == [1] * 4
    assert sum(row["rewards"][0] for row in rows) == 4 * found["reward_mean"]
    # When Transformers answers, and a scorer compares with what vLLM wrote
    options = ["--engine=transformers", "--task=quickstart-preferences", f"--against={items}"]
    again = evaluated("smollm2-135m", *options)
    # Then the answers are the same, and so nobody wins again
    assert again["accuracy"] is None
    assert again["against"]["win_rate"] == 0.5
    assert again["length_mean"] == pytest.approx(found["length_mean"], abs=1)


def test_an_interrupt_ends_the_engine_and_leaves(tmp_path: Path) -> None:
    out = tmp_path / "items.jsonl"
    command = [CLI, "eval", "smollm2-135m", "--task=quickstart", f"--out={out}"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        while "loading smollm2-135m" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(2)
        os.killpg(process.pid, signal.SIGINT)
        words = process.stderr.read()
        assert process.wait(60) == 130
    assert words.rstrip().endswith("stopped; nothing was written")
    assert not out.exists()
    assert processes_below(tmp_path) == []
