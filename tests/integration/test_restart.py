"""Roles of a real run are killed; the run goes on to its end and loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.conftest import processes_below
from tests.integration.test_end_to_end import CLI, MINUTES, records

STEPS = 8
SETTINGS = [
    f"--set=learner.steps={STEPS}", "--set=learner.checkpoint_every=2", "--set=task.held_out=20",
    "--set=eval.every_steps=100", "--set=sampling.completions=4", "--set=learner.groups_per_step=4",
    "--set=broker.lease_s=10", "--set=broker.renew_s=3", "--set=learner.lookahead_steps=0",
]  # fmt: skip

pytestmark = pytest.mark.timeout(10 * MINUTES)


def kill(run_dir: Path, name: str) -> None:
    """SIGKILL to the process that the role's newest life runs in."""
    log = (run_dir / "logs" / f"{name}.log").read_text()
    os.kill(int(re.findall(rf"{name} begins in process (\d+)", log)[-1]), signal.SIGKILL)


def test_a_generator_a_scorer_and_the_learner_are_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "up.log"
    with log.open("w") as file:
        up = subprocess.Popen(
            [CLI, "up", "quickstart", "--run-dir", str(run_dir), *SETTINGS],
            stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def wait_for(step: int) -> None:
        deadline = time.monotonic() + 5 * MINUTES
        while not any(r["step"] >= step for r in records(run_dir)):
            assert up.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    # Given a run, nothing of it sampled ahead, whose generator and scorer are killed, and later its learner
    wait_for(2)
    kill(run_dir, "generator-0")
    kill(run_dir, "scorer-0")
    wait_for(5)
    kill(run_dir, "learner-0")
    # Then it ends as it would have: every step once, every ticket once
    assert up.wait(5 * MINUTES) == 0, log.read_text()
    lines = records(run_dir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert len({line["epoch"] for line in lines}) == 2
    uids = [uid for line in lines for uid in line["tickets"]]
    assert sorted(uids) == [f"train-{i:09d}" for i in range(4 * STEPS)]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["finished"]
    assert summary["restarts"] == {"generator-0": 1, "scorer-0": 1, "learner-0": 1}
    assert "generator-0 is started again in 1 s" in log.read_text()
    # And nothing is left running
    assert processes_below(run_dir) == []
