"""Reserving room, on a Ray that keeps a table of machines."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from sppo import compute, config
from sppo.config import RunConfig
from sppo.errors import ConfigError, SppoError
from sppo.launch import places
from sppo.launch.places import Places
from sppo.launch.room import Demand, staff


class Ray:
    """Machines by name, what each has and what is free of it; groups as they are asked for."""

    def __init__(self, **gpus: float) -> None:
        self.has = dict(gpus)
        self.free = dict(gpus)
        self.asked: list[tuple[dict[str, float], str | None]] = []
        self.engines: list[tuple[Any, Any]] = []
        """Groups of several bundles, and which machine each names."""
        self.removed: list[Any] = []
        self.ready = True
        per_node = SimpleNamespace(
            available_resources_per_node=lambda: {n: {"GPU": g} for n, g in self.free.items()}
        )
        self._private = SimpleNamespace(state=per_node)

    def nodes(self) -> list[dict[str, Any]]:
        gone = {"NodeID": "gone", "NodeManagerHostname": "gone", "Alive": False, "Resources": {}}
        return [gone] + [
            {"NodeID": n, "NodeManagerHostname": n, "Alive": True, "Resources": {"GPU": g}}
            for n, g in self.has.items()
        ]

    def make(
        self, bundles: Any, strategy: str, _soft_target_node_id: str | None = None,
        bundle_label_selector: Any = None,
    ) -> Any:  # fmt: skip
        assert strategy == ("STRICT_PACK" if len(bundles) == 1 else "PACK")
        if len(bundles) > 1:
            self.engines.append((bundles, bundle_label_selector))
        else:
            self.asked.append((bundles[0], _soft_target_node_id))
        return SimpleNamespace(wait=lambda timeout: self.ready)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made, of_ray = Ray(a=8, b=8), import_module("ray.util.placement_group")
    monkeypatch.setattr(of_ray, "placement_group", made.make)
    monkeypatch.setattr(of_ray, "remove_placement_group", made.removed.append)
    monkeypatch.setattr(places, "POLL_S", 0.01)
    return made


def run(*given: str) -> RunConfig:
    return compute.placed(config.load("cluster", list(given), environment=False), cuda=True)


def test_all_of_a_run_is_reserved_at_once_the_largest_first(ray: Ray) -> None:
    made = Places(ray)
    made.seat(run(), staff(run()))
    assert ray.asked[0] == ({"GPU": 8.0}, "a")
    assert ray.asked[1:] == [({"GPU": 1.0}, "b")] * 8
    # A process takes what was reserved for it, and its next life asks again, for the same machine
    # while that is up
    groups = made.take("learner-0", made.wanted("learner", "learner-0", run()))
    assert len(groups) == 1
    assert len(ray.asked) == 9
    made.remove(groups)
    assert ray.removed == groups
    assert made.take("learner-0", made.wanted("learner", "learner-0", run())) != groups
    assert ray.asked[-1] == ({"GPU": 8.0}, "a")
    ray.has = {"b": 8, "c": 8}
    made.take("learner-0", made.wanted("learner", "learner-0", run()))
    assert ray.asked[-1] == ({"GPU": 8.0}, None)


def test_what_others_have_is_waited_for_and_what_is_not_there_refused(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.free["a"], ray.ready = 0, False
    made = Places(ray)
    made.seat(run(), staff(run()))  # no machine is named: none has room now
    assert {node for _, node in ray.asked} == {None}
    monkeypatch.setattr(places, "PLACE_TIMEOUT_S", 0.0)
    with pytest.raises(ConfigError) as caught:
        made.take("learner-0", Demand(gpus=8))
    assert str(caught.value) == (
        "no machine of the cluster has room for learner-0 (8 GPUs on one machine; free are "
        "a: 0 GPUs, 0 CPUs; b: 8 GPUs, 0 CPUs)"
    )
    assert len(ray.removed) == 1
    ray.has = {"a": 8, "b": 4}
    with pytest.raises(ConfigError, match=r"asks for 16 GPUs .* and Ray has 12 \(a: 8"):
        made.check(run(), staff(run()))


def test_machines_that_may_come_are_asked_for_and_waited_for(ray: Ray) -> None:
    ray.has = ray.free = {"head": 0}
    ray.ready = False
    made, told = Places(ray), list[str]()
    with pytest.raises(ConfigError, match="and Ray has 0"):
        made.seat(run(), staff(run()))
    waiting = run("launch.room_wait_s=0.03")
    made.seat(waiting, staff(waiting))
    assert [bundle for bundle, _ in ray.asked] == [{"GPU": 8.0}] + [{"GPU": 1.0}] * 8
    with pytest.raises(ConfigError, match=r"room_wait_s = 0.03: .* no room for learner-0, gen"):
        made.wait(waiting, lambda: False, told.append)
    assert len(told) == 1
    with pytest.raises(SppoError, match=r"stopped while .* no room for learner-0") as stopped:
        made.wait(run("launch.room_wait_s=60"), lambda: True, told.append)
    assert not isinstance(stopped.value, ConfigError)
    ray.ready = True
    made.wait(waiting, lambda: False, told.append)
    made.wait(run(), lambda: True, told.append)  # nothing is waited for


def test_an_engine_on_two_machines_has_one_group_that_names_both(ray: Ray) -> None:
    made = Places(ray)
    ray.free = {"a": 8, "b": 8}
    wanted = run("generator.tensor_parallel=12", "generator.replicas=1", "learner.ranks=4")
    made.seat(wanted, staff(wanted))
    (there,) = [ray.engines.pop() for _ in ray.engines]
    assert there == (
        [{"GPU": 1.0}] * 12, [{"ray.io/node-id": "a"}] * 6 + [{"ray.io/node-id": "b"}] * 6
    )  # fmt: skip
    assert len(made.take("generator-0", made.wanted("generator", "generator-0", wanted))) == 1
    # A new life goes where it was, or where there is room when one of these is gone
    engine = made.wanted("generator", "generator-0", wanted)
    assert made.reserve("generator-0", engine)
    assert ray.engines.pop()[1] is not None
    made.release("generator-0")
    del ray.has["b"]
    assert made.reserve("generator-0", engine)
    assert ray.engines.pop()[1] is None


def test_who_asks_for_nothing_has_room_anywhere(ray: Ray) -> None:
    assert Places(ray).reserve("scorer-0", Demand())
    assert ray.asked == []


def test_machines_of_one_name_are_told_apart(ray: Ray) -> None:
    ray.has = {"a": 8, "b": 8}
    ray.nodes = lambda: [  # type: ignore[method-assign]
        {"NodeID": n * 9, "NodeManagerHostname": "h", "Alive": True, "Resources": {}} for n in "ab"
    ]
    assert [m.name for m in Places(ray).machines()] == ["h (aaaaaa)", "h (bbbbbb)"]
