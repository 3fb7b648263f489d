"""The plan of faults, and the run that it is made for."""

from __future__ import annotations

from sppo import config
from sppo.chaos import plan as plans
from tests import makers

ROLES = ["learner-0", "generator-0", "scorer-0", "broker"]


def test_the_plan_follows_from_the_seed_and_kills_every_role_in_turn() -> None:
    plan = plans.plan(1, 10, 60, ROLES, plans.KINDS)
    assert plan == plans.plan(1, 10, 60, ROLES, plans.KINDS)
    assert plan != plans.plan(2, 10, 60, ROLES, plans.KINDS)
    kills = [f for f in plan if f.kind == "kill"]
    assert [f.at_s for f in kills] == [30.0 + 60 * i for i in range(10)]
    assert {f.role for f in kills[:4]} == {f.role for f in kills[4:8]} == set(ROLES)
    assert all(f.seconds > 0 for f in plan if f.kind != "kill")
    assert all(f.kind in ("kill", "stop") for f in plan if f.role == "broker")  # it has no proxy
    assert {f.kind for f in plans.plan(1, 10, 60, ROLES, ["kill"])} == {"kill"}


def test_the_roles_are_those_that_the_run_starts() -> None:
    two = makers.run_config(generator={"replicas": 2})
    assert plans.role_names(two) == ["learner-0", "generator-0", "generator-1", "scorer-0"]
    assert plans.role_names(makers.run_config(scorer={"mode": "inline"})) == [
        "learner-0",
        "generator-0",
    ]


def test_any_preset_can_be_hurt() -> None:
    for preset in config.presets():
        assert config.load(preset, [*plans.OVERRIDES]).launch.max_restarts == 1000
