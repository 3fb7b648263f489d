"""What the report makes of outcomes and of what the run says of itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sppo.chaos import report
from sppo.chaos.audit import Audit
from sppo.chaos.plan import Fault, Outcome

CLEAN = Audit(issued=8, trained=8, twice=[], lost=[], dead={}, dead_unexplained=[], leftovers=[])


def sync(ready_s: float, failures: int = 0, alone_s: float = 0.0) -> dict[str, Any]:
    return {
        "kind": "sync", "ready_s": ready_s, "transfer_s": 0.5, "alone_s": alone_s,
        "failures": ["x"] * failures
    }  # fmt: skip


def test_a_sync_has_hung_when_it_outlasts_its_deadlines() -> None:
    assert report.hung_syncs([sync(5), sync(30, failures=1), sync(300, alone_s=290)], 10) == []
    assert len(report.hung_syncs([sync(60), sync(300, alone_s=100)], 10)) == 2


def test_a_check_fails_for_each_promise_that_was_broken() -> None:
    fault = Fault(at_s=1, kind="kill", role="learner-0")
    fine = Outcome(fault=fault, restarted=True, recovery_s=12.0)
    assert all(c["ok"] for c in report.checks(CLEAN, [fine], 0, []))
    broken = {
        "tickets_lost": report.checks(replace(CLEAN, lost=["a"]), [fine], 0, []),
        "tickets_trained_twice": report.checks(replace(CLEAN, twice=["a"]), [fine], 0, []),
        "tickets_dead_unexplained": report.checks(
            replace(CLEAN, dead_unexplained=["a"]), [fine], 0, []
        ),
        "syncs_hung": report.checks(CLEAN, [fine], 1, []),
        "max_recovery_s": report.checks(CLEAN, [replace(fine, recovery_s=None)], 0, []),
        "orphans": report.checks(CLEAN, [fine], 0, ["12 vllm"]),
    }
    for name, found in broken.items():
        assert [c["name"] for c in found if not c["ok"]] == [name]


def test_a_learner_that_stands_still_without_a_fault_counts_as_a_hung_sync() -> None:
    event = {
        "kind": "restart",
        "role": "learner-0",
        "text": "learner-0 had hung (no progress ...)",
        "time": 1100.0,
    }
    stop = Outcome(
        fault=Fault(at_s=60, kind="stop", role="learner-0", seconds=25),
        restarted=True, recovery_s=20.0, began=1060.0,
    )  # fmt: skip
    assert report.hung_learners([event], [stop], 60) == []
    assert report.hung_learners([event | {"time": 1900.0}], [stop], 60) != []
    assert report.hung_learners([event], [], 60) == [event]
    assert report.hung_learners([event | {"role": "scorer-0"}], [], 60) == []


def test_an_outcome_is_one_line() -> None:
    stop = Fault(at_s=30, kind="stop", role="scorer-0", seconds=3)
    on = Outcome(fault=stop, restarted=False, recovery_s=1.5)
    assert report.line(on) == "    30 s  stop scorer-0 for 3.0 s: went on 1.5 s after it was over"
    again = replace(on, restarted=True, engine_start_s=4.0)
    assert "started again, working after 1.5 s and 4.0 s of the engine's own start" in report.line(
        again
    )
    assert "not working again after 180 s" in report.line(replace(on, recovery_s=None))
    assert "the run ended before" in report.line(replace(on, recovery_s=None, run_ended=True))
