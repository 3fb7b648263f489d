"""Each role is killed with SIGKILL at every labelled point: nothing is lost, nothing is trained
twice.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sppo import faults
from tests.faults.rig import Rig

RECOVERY_S = 30

LATER = {
    # the first passing is before there is anything to lose
    "learner.claimed": 3,
    "learner.frame.fetched": 5,
    "learner.step.taken": 3,
    "learner.used": 3,
    "learner.recorded": 3,
    "learner.sync.announced": 3,
    "learner.sync.sent": 3,
    "learner.sync.applied": 3,
    "learner.settle.begun": 4,
    "checkpoint.renamed": 2,
    "generator.leased": 5,
    "generator.sampled": 5,
    "generator.scored": 5,
    "generator.push.stored": 5,
    "generator.pushed": 5,
    "generator.sync.paused": 2,
    "generator.sync.applied": 2,
    "scorer.received": 5,
    "scorer.scored": 5,
}


@pytest.mark.parametrize("label", faults.POINTS)
def test_a_role_that_dies_here_loses_nothing(label: str, model: str, tmp_path: Path) -> None:
    role = "learner" if label.startswith("checkpoint") else label.split(".")[0]
    spool = {"max_groups": 4, "checkpoint_every": 6} if ".spool." in label else {}
    young = {"lookahead_steps": 3, "max_staleness": 1} if ".again." in label else {}
    options = {"poison": "train-000000002.1.0"} if label == "learner.frame.rejected" else {}
    buries = label != "generator.leased"  # the one that nobody takes out of the registry
    with Rig(tmp_path, model, options=options, buries=buries, **spool, **young) as rig:
        started = time.monotonic()
        rig.run(crash={role: f"{label}@{LATER.get(label, 1)}"})
        found = rig.audit()
        assert rig.deaths[f"{role}-0"] == 1, f"the point was not passed\n{rig.logs()}"
        assert (found.twice, found.lost, found.dead, found.leftovers) == ([], [], {}, []), (
            rig.logs()
        )
        assert found.trained == found.issued == 12
        assert time.monotonic() - started < RECOVERY_S
