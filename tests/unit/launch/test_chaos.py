"""The plan of faults, and what the report makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sppo import config
from sppo.launch import chaos
from sppo.launch.audit import Audit
from sppo.launch.chaos import Fault, Outcome
from tests import makers

ROLES = ["learner-0", "generator-0", "scorer-0", "broker"]
CLEAN = Audit(issued=8, trained=8, twice=[], lost=[], dead={}, dead_unexplained=[], leftovers=[])


def sync(ready_s: float, failures: int = 0, alone_s: float = 0.0) -> dict[str, Any]:
    return {
        "kind": "sync", "ready_s": ready_s, "transfer_s": 0.5, "alone_s": alone_s, "failures": ["x"] * failures
    }  # fmt: skip


def test_the_plan_follows_from_the_seed_and_kills_every_role_in_turn() -> None:
    plan = chaos.plan(1, 10, 60, ROLES, chaos.KINDS)
    assert plan == chaos.plan(1, 10, 60, ROLES, chaos.KINDS)
    assert plan != chaos.plan(2, 10, 60, ROLES, chaos.KINDS)
    kills = [f for f in plan if f.kind == "kill"]
    assert [f.at_s for f in kills] == [30.0 + 60 * i for i in range(10)]
    assert {f.role for f in kills[:4]} == {f.role for f in kills[4:8]} == set(ROLES)
    assert all(f.seconds > 0 for f in plan if f.kind != "kill")
    assert all(f.kind in ("kill", "stop") for f in plan if f.role == "broker")  # it has no proxy
    assert {f.kind for f in chaos.plan(1, 10, 60, ROLES, ["kill"])} == {"kill"}


def test_a_sync_has_hung_when_it_outlasts_its_deadlines() -> None:
    assert chaos.hung_syncs([sync(5), sync(30, failures=1), sync(300, alone_s=290)], 10) == []
    assert len(chaos.hung_syncs([sync(60), sync(300, alone_s=100)], 10)) == 2


def test_a_check_fails_for_each_promise_that_was_broken() -> None:
    fault = Fault(at_s=1, kind="kill", role="learner-0")
    fine = Outcome(fault=fault, restarted=True, recovery_s=12.0)
    assert all(c["ok"] for c in chaos.checks(CLEAN, [fine], 0, []))
    broken = {
        "tickets_lost": chaos.checks(replace(CLEAN, lost=["a"]), [fine], 0, []),
        "tickets_trained_twice": chaos.checks(replace(CLEAN, twice=["a"]), [fine], 0, []),
        "tickets_dead_unexplained": chaos.checks(
            replace(CLEAN, dead_unexplained=["a"]), [fine], 0, []
        ),
        "syncs_hung": chaos.checks(CLEAN, [fine], 1, []),
        "max_recovery_s": chaos.checks(CLEAN, [replace(fine, recovery_s=None)], 0, []),
        "orphans": chaos.checks(CLEAN, [fine], 0, ["12 vllm"]),
    }
    for name, found in broken.items():
        assert [c["name"] for c in found if not c["ok"]] == [name]


def test_the_roles_are_those_that_the_run_starts() -> None:
    two = makers.run_config(generator={"replicas": 2})
    assert chaos.role_names(two) == ["learner-0", "generator-0", "generator-1", "scorer-0"]
    assert chaos.role_names(makers.run_config(scorer={"mode": "inline"})) == [
        "learner-0",
        "generator-0",
    ]


def test_a_learner_that_stands_still_without_a_fault_counts_as_a_hung_sync() -> None:
    event = {
        "kind": "restart",
        "role": "learner-0",
        "text": "learner-0 had hung (no progress ...)",
        "time": 1100.0,
    }
    stop = Outcome(
        fault=Fault(at_s=60, kind="stop", role="learner-0", seconds=25), restarted=True, recovery_s=20.0, began=1060.0
    )  # fmt: skip
    assert chaos.hung_learners([event], [stop]) == []
    assert chaos.hung_learners([event | {"time": 1900.0}], [stop]) != []
    assert chaos.hung_learners([event], []) == [event]
    assert chaos.hung_learners([event | {"role": "scorer-0"}], []) == []


def test_any_preset_can_be_hurt() -> None:
    for preset in config.presets():
        overrides = chaos.overrides(config.load(preset))
        assert config.load(preset, overrides).launch.max_restarts == 1000
