"""Preferences end to end on the real parts: a judge with cycles and contradictions, a resume
between two iterations.

The learner has two ranks, the generator is Transformers: the other tests have one and vLLM.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.conftest import REPOSITORY, processes_below
from tests.integration.test_end_to_end import CLI, MINUTES, records

SETTINGS = {
    "compute": "float32",
    "scorer.name": "tests.integration.judge:judge",
    "sampling.completions": 4,
    "learner.ranks": 2,
    "generator.engine": "transformers",
    "task.held_out": 4,
    "eval.every_steps": 100,
    "learner.steps": 9,
    "learner.groups_per_step": 4,
    "objective.target": "half",
    "objective.select": "best_worst",
    "objective.anchor": "iteration",
    "objective.iteration_steps": 4,
    "learner.snapshot": "host",
    "objective.eta": 5,
    "objective.kl_coef": 0.01,
}

pytestmark = pytest.mark.timeout(8 * MINUTES)


def start(run_dir: Path, log: Path, model: str) -> subprocess.Popen[str]:
    with log.open("a") as file:
        return subprocess.Popen(
            [CLI, "up", "quickstart", "--run-dir", str(run_dir), f"--set=model.name={model}",
             *(f"--set={k}={v}" for k, v in SETTINGS.items())],
            stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            cwd=REPOSITORY,
        )  # fmt: skip


def test_a_run_by_preferences_survives_bad_answers_and_a_stop_between_snapshots(
    small_model: str, tmp_path: Path
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "up.log"
    # Given a run that is interrupted while generators still run the weights of its last snapshot
    first = start(run_dir, log, small_model)
    deadline = time.monotonic() + 4 * MINUTES
    while len(records(run_dir)) < 5:
        assert first.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGHUP)  # the terminal was closed
    assert first.wait(2 * MINUTES) == 0, log.read_text()
    # When it is resumed
    assert start(run_dir, log, small_model).wait(4 * MINUTES) == 0, log.read_text()
    # Then every step is there once, each with what the objective promises
    lines = records(run_dir)
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert [line["step"] for line in lines if line["delta_std"] is None] == [1, 5, 9]
    for line in lines:
        assert line["reward_mean"] is None
        assert 0 <= line["kl"] < 1
        assert math.isfinite(line["loss"])
        assert line["residual_std"] > 0
        # The best and the worst of four groups: one completion of a group whose win rates all tie
        trained = line["tokens"] / line["length_mean"]
        assert trained == pytest.approx(round(trained))
        assert 4 < round(trained) <= 8
    assert max(line["tokens"] / line["length_mean"] for line in lines) == pytest.approx(8)
    # And the tickets that the judge contradicted itself about are dead letters, with its name and
    # the entry
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["tickets"]["trained"] == 36
    assert summary["tickets"]["twice"] == 0
    assert summary["tickets"]["dead"] > 0
    logs = (run_dir / "logs" / "generator-0.log").read_text()
    assert "judge, group train-" in logs
    assert "preferences[0][1] = 1.5" in logs
    # So are those whose scoring ended the judge's process; the service and the run went on
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    dead = {e["uid"]: e["reason"] for e in events if e["kind"] == "dead"}
    assert any("preferences[0][1] = 1.5" in reason for reason in dead.values())
    assert any("its process ended with exit code 9" in reason for reason in dead.values())
    assert any(e["kind"] == "refusal" and e["reason"].startswith("generator-0: ") for e in events)
    assert summary["restarts"] == {}
    assert processes_below(run_dir) == []
