"""A scorer's service that is killed with groups in hand and started again: each group gets its own
answer, and in a run each ticket is trained once.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sppo.bench import scorer as bench
from tests.faults.rig import Rig

AT_ONCE = 200
KILLS = 2


@pytest.mark.timeout(120)
def test_groups_in_hand_of_a_service_that_is_killed_get_their_own_answers() -> None:
    # Given a scorer that waits and one that computes, both behind the service
    found = bench.measure(at_once=AT_ONCE, rounds=1, computed=8, say=lambda _: None)
    # When it is killed with all groups in hand
    assert found.killed_in_hand == AT_ONCE
    # Then none is lost, or gets another's answer
    assert found.lost == 0
    assert found.p99_s >= found.p50_s > found.waits_s


def test_a_run_whose_scorer_is_killed_again_and_again_trains_each_ticket_once(
    model: str, tmp_path: Path
) -> None:
    with Rig(tmp_path, model, steps=8) as rig:
        for name in ("scorer-0", "generator-0", "learner-0"):
            rig.start(name)
        deadline = time.monotonic() + 90
        while rig.step():
            assert time.monotonic() < deadline, rig.logs()
            beats = {m.name: m.progress for m in rig.broker.registry.members()}
            if rig.deaths["scorer-0"] < KILLS and beats.get("scorer-0", 0) > 1:
                # When it has scored, and groups are likely to be in hand
                os.kill(rig.pid("scorer-0"), signal.SIGKILL)
            time.sleep(0.05)
        # Then
        assert rig.deaths["scorer-0"] >= 1
        found = rig.audit()
        assert (found.twice, found.lost, found.dead, found.leftovers) == ([], [], {}, []), (
            rig.logs()
        )
        assert found.trained == found.issued == 16
