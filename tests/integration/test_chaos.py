"""Every role of a real run and its broker are killed; the run goes on to its end and loses nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import processes_below
from tests.integration.test_end_to_end import CLI, MINUTES, records

STEPS = 10
SETTINGS = [
    f"--set=learner.steps={STEPS}", "--set=learner.checkpoint_every=2", "--set=task.held_out=20",
    "--set=eval.every_steps=100", "--set=sampling.completions=4", "--set=learner.groups_per_step=4",
    "--set=learner.lookahead_steps=0",
]  # fmt: skip


@pytest.mark.timeout(10 * MINUTES)
def test_every_role_of_a_run_is_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    # Given a run, nothing of it sampled ahead, whose roles and broker are killed one after another
    run_dir = tmp_path / "run"
    done = subprocess.run(
        [CLI, "chaos", "quickstart", "--seed", "1", "--faults", "kill", "--every", "10", "--minutes", "0.7", "--json",
         "--run-dir", str(run_dir), *SETTINGS],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    log = (run_dir / "up.log").read_text()
    report = json.loads(done.stdout)
    # Then it ends as it would have: every step once, every ticket once, nothing left running
    assert {c["name"]: c["value"] for c in report["checks"] if c["name"] != "max_recovery_s"} == dict.fromkeys(
        ("tickets_lost", "tickets_trained_twice", "tickets_dead_unexplained", "syncs_hung", "orphans"), 0
    ), log
    assert report["finished"]
    assert {o["fault"]["role"] for o in report["faults"]} == {"broker", "generator-0", "learner-0", "scorer-0"}, log
    assert all(o["restarted"] and o["recovery_s"] is not None for o in report["faults"]), (done.stderr, log)
    lines = records(run_dir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    uids = [uid for line in lines for uid in line["tickets"]]
    assert sorted(uids) == [f"train-{i:09d}" for i in range(4 * STEPS)]
    assert processes_below(run_dir) == []
