"""Every role of a real run and its broker are killed, and stopped until they count as hung; nothing
is lost.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sppo.chaos import plan as chaos
from tests.integration.conftest import REPOSITORY, SMALL_SCORER, processes_below
from tests.integration.test_end_to_end import CLI, MINUTES, records

STEPS = 18
SETTINGS = [
    f"--set=learner.steps={STEPS}", "--set=learner.checkpoint_every=2", "--set=task.held_out=10",
    "--set=eval.every_steps=100", "--set=sampling.completions=4", "--set=learner.groups_per_step=4",
    "--set=learner.lookahead_steps=0", f"--set=scorer.name={SMALL_SCORER}",
]  # fmt: skip
MINUTES_OF_FAULTS, EVERY_S = 0.375, 6
"""Each fault waits until the one before is over, so the run spends most of its time with a role
away.
"""
ROLES = ["learner-0", "generator-0", "scorer-0", "broker"]


def seed_of_a_plan_that_hangs_scorer_and_broker() -> int:
    """The stops of this plan last so long that `up` must end scorer and broker and start them
    again.

    The learner is killed after two others, so that it has steps to lose and a checkpoint to come
    back from.
    """
    for seed in range(10_000):
        plan = chaos.plan(seed, MINUTES_OF_FAULTS, EVERY_S, ROLES, ["kill", "stop"])
        stops = [(f.role, f.seconds == chaos.LONG_STOP_S) for f in plan if f.kind == "stop"]
        if {role for role, long in stops if long} != {"scorer-0", "broker"} or plan[
            -1
        ].kind != "kill":
            continue
        if "learner-0" in [f.role for f in plan if f.kind == "kill"][2:]:
            return seed
    raise AssertionError("no such seed")


@pytest.mark.timeout(12 * MINUTES)
def test_every_role_of_a_run_is_killed_or_hangs_and_nothing_is_lost(
    few_layers: str, tmp_path: Path
) -> None:
    # Given a run, nothing of it sampled ahead, whose roles and broker are killed one after another,
    # and stopped
    run_dir = tmp_path / "run"
    seed = seed_of_a_plan_that_hangs_scorer_and_broker()
    done = subprocess.run(
        [CLI, "chaos", "quickstart", "--seed", str(seed), "--faults", "kill,stop", "--every",
         str(EVERY_S),
         "--minutes", str(MINUTES_OF_FAULTS), "--json", "--run-dir", str(run_dir), *SETTINGS,
         f"--set=model.name={few_layers}"],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    log = (run_dir / "up.log").read_text()
    assert done.stdout, (done.stderr, log)
    report = json.loads(done.stdout)
    # Then it ends as it would have: every step once, every ticket once, nothing left running
    found = {c["name"]: c["value"] for c in report["checks"] if c["name"] != "max_recovery_s"}
    assert found == dict.fromkeys(
        ("tickets_lost", "tickets_trained_twice", "tickets_dead_unexplained", "syncs_hung",
         "orphans",
         "run_unfinished", "plan_untouched"), 0
    ), (done.stderr, log)  # fmt: skip
    seen = [o for o in report["faults"] if not o["run_ended"]]
    assert {"scorer-0", "learner-0"} <= {
        o["fault"]["role"] for o in seen if o["fault"]["kind"] == "kill"
    }, done.stderr
    assert all(o["recovery_s"] is not None for o in seen), (done.stderr, log)
    assert all(o["restarted"] for o in seen if o["fault"]["kind"] == "kill")
    said = {
        "broker": "gave no answer for 10 s",
        "scorer-0": "scorer-0 had hung (no heartbeat from ",
    }
    hung = [o for o in seen if o["fault"]["seconds"] == chaos.LONG_STOP_S]
    assert hung, done.stderr
    for outcome in hung:
        assert outcome["restarted"], (done.stderr, log)
        assert said[outcome["fault"]["role"]] in log
    lines = records(run_dir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    uids = [uid for line in lines for uid in line["tickets"]]
    assert sorted(uids) == [f"train-{i:09d}" for i in range(4 * STEPS)]
    assert processes_below(run_dir) == []
