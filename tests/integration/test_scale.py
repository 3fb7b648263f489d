"""`sppo-cli scale` on a running job: newcomers work, leavers hand back what they have, the learner
goes on, at the scorer's pace.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sppo import spans
from sppo.metrics import read_lines
from tests.integration.conftest import REPOSITORY, UNHURRIED_SCORER, processes_below
from tests.integration.test_end_to_end import CLI, MINUTES, records

GROUPS = 4
SETTINGS = [
    "--set=learner.steps=400", f"--set=learner.groups_per_step={GROUPS}",
    "--set=sampling.completions=4",
    "--set=task.held_out=0", "--set=generator.engine=transformers", "--set=generator.cpus=0.5",
    f"--set=generator.max_groups={GROUPS}",  # half of what is let out
    f"--set=scorer.name={UNHURRIED_SCORER}",
]  # fmt: skip


def scale(run_dir: Path, *what: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLI, "scale", *what, "--run-dir", str(run_dir)], capture_output=True, text=True
    )


def syncs(run_dir: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["kind"] == "sync"]


@pytest.mark.timeout(8 * MINUTES)
def test_generators_and_scorers_come_and_go_while_the_learner_trains(
    small_model: str, tmp_path: Path
) -> None:
    # Given a running job
    run_dir, log = tmp_path / "run", tmp_path / "up.log"
    with log.open("w") as file:
        up = subprocess.Popen(
            [CLI, "up", "quickstart", "--run-dir", str(run_dir), f"--set=model.name={small_model}",
             *SETTINGS],
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True, cwd=REPOSITORY,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 3 * MINUTES
        while not records(run_dir):
            assert up.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        # When more is asked for than the machine has, nothing changes
        many = scale(run_dir, "generators=1000")
        assert many.returncode == 2
        assert (
            f"the run asks for 500 CPUs (1000 generators of 0.5) and Ray has {os.cpu_count()}"
            in many.stderr
        )
        # When it grows
        before = len(records(run_dir))
        grown = scale(run_dir, "generators=2", "scorers=2")
        assert grown.returncode == 0, (grown.stderr, log.read_text())
        assert "2 of 2 generators at work, 2 of 2 scorers at work" in grown.stdout
        came = len(syncs(run_dir))
        status = json.loads(
            subprocess.run([CLI, "status", str(run_dir), "--json"], capture_output=True).stdout
        )
        assert sorted(status["members"]) == [
            "generator-0",
            "generator-1",
            "learner-0",
            "scorer-0",
            "scorer-1",
        ]
        # Then the newcomer contributes within two weight syncs
        while not (sampled := when_sampled(run_dir, "generator-1")):
            assert len(syncs(run_dir)) <= came + 10, log.read_text()
            time.sleep(0.1)
        meanwhile = [event for event in syncs(run_dir)[came:] if event["time"] < sampled[0]]
        assert len(meanwhile) <= 2, log.read_text()
        # When it shrinks again
        shrunk = scale(run_dir, "generators=1", "scorers=1")
        assert shrunk.returncode == 0, (shrunk.stderr, log.read_text())
        after = len(records(run_dir))
        assert after > before
        os.killpg(up.pid, signal.SIGINT)
        assert up.wait(2 * MINUTES) == 0, log.read_text()
    finally:
        if up.poll() is None:
            os.killpg(up.pid, signal.SIGKILL)
    # Then nothing was lost or trained twice, the learner was never started again, and no sync
    # failed for a leaver
    lines = records(run_dir)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    uids = sorted(uid for line in lines for uid in line["tickets"])
    assert len(uids) == len(set(uids)) == GROUPS * len(lines)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["restarts"] == {}
    assert (summary["tickets"]["twice"], summary["tickets"]["dead"]) == (0, 0)
    assert [event["failures"] for event in syncs(run_dir)] == [[]] * len(syncs(run_dir))
    assert {"generator-1", "generator-0"} in [set(event["members"]) for event in syncs(run_dir)]
    assert syncs(run_dir)[-1]["members"] == ["generator-0"]
    assert processes_below(run_dir) == []


def when_sampled(run_dir: Path, generator: str) -> list[float]:
    """When its groups that have been trained were sampled, the earliest first."""
    groups = [group for step in read_lines(run_dir / spans.NAME) for group in step["groups"]]
    return sorted(group["times"][2] for group in groups if group["generator"] == generator)
