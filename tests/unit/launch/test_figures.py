"""What Prometheus would read, by name and labels."""

from __future__ import annotations

from typing import Any

from sppo import config
from sppo.launch.figures import DEPTHS, Figures
from sppo.metrics import METRICS
from sppo.transport.memory import MemoryBroker
from sppo.types import Member

STEP = {
    "step": 3, "loss": 0.5, "kl": None, "tokens": 100, "step_s": 2.0, "wait_s": 0.5,
    "skipped": None,
    "tickets": ["train-0"], "epoch": "a", "grad_clipped": True, "wall_s": 9.0,
}  # fmt: skip
GENERATOR = Member(
    name="generator-0", role="generator", host="node1", applied="a:2", busy_s=8.0, ready_s=10.0,
    tokens=700, in_hand=4, scoring=1, counters={"calls": 12},
)  # fmt: skip


def read(figures: Figures) -> dict[str, float]:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(figures)
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def figures() -> Figures:
    return Figures(config.load("quickstart"))


def test_a_step_is_gauges_by_the_names_of_metrics_and_sums() -> None:
    found = figures()
    for _ in range(2):
        found.event({"kind": "step", "record": STEP})
    found.event({"kind": "step", "record": {**STEP, "skipped": "loss is inf", "wait_s": None}})
    read_back = read(found)
    assert read_back["sppo_learner_step"] == 3
    assert read_back["sppo_learner_loss"] == 0.5
    assert read_back["sppo_learner_wall_seconds"] == 9
    assert read_back["sppo_learner_tokens_total"] == 300
    assert read_back["sppo_learner_step_seconds_total"] == 6
    assert read_back["sppo_learner_wait_seconds_total"] == 1
    assert read_back["sppo_learner_skipped_total"] == 1
    assert not [name for name in read_back if "kl" in name or "tickets" in name]


def test_an_evaluation_has_its_interval() -> None:
    found = figures()
    record = {"step": 20, "accuracy": 0.3, "win_rate": None, "interval": [0.2, 0.4], "n": 200}
    found.event({"kind": "eval", "record": record})
    read_back = read(found)
    assert read_back["sppo_evaluation_accuracy"] == 0.3
    assert read_back["sppo_evaluation_interval_low"] == 0.2


def test_each_role_and_the_broker() -> None:
    found = figures()
    depths = {"todo": 5, "queued": 2, "bytes": 100}
    found.saw([GENERATOR, Member(name="scorer-0", role="scorer", busy_s=1.0)], depths)
    read_back = read(found)
    labels = 'host="node1",name="generator-0",role="generator"'
    assert read_back[f"sppo_role_tokens_total{{{labels}}}"] == 700
    assert read_back[f"sppo_role_version{{{labels}}}"] == 2
    assert read_back[f'sppo_role_counts_total{{{labels},what="calls"}}'] == 12
    assert read_back['sppo_role_busy_seconds_total{host="",name="scorer-0",role="scorer"}'] == 1
    assert not [name for name in read_back if "tokens" in name and "scorer" in name]
    assert read_back["sppo_broker_tickets_waiting"] == 5
    assert read_back["sppo_broker_queued_bytes"] == 100


def test_what_happened_to_the_run() -> None:
    found = figures()
    found.restarts = lambda: {"generator-0": 2}
    for event in (
        {"kind": "dead", "count": 3}, {"kind": "phase", "phase": "training"},
        {"kind": "sync", "failures": ["generator-0"]}, {"kind": "checkpoint", "held_s": 0.25},
    ):  # fmt: skip
        found.event(event)
    read_back = read(found)
    assert read_back['sppo_run_restarts_total{name="generator-0"}'] == 2
    assert read_back['sppo_run_events_total{kind="dead"}'] == 3
    assert read_back['sppo_run_events_total{kind="warning"}'] == 0
    assert read_back["sppo_learner_sync_failures_total"] == 1
    assert read_back["sppo_learner_checkpoint_held_seconds_total"] == 0.25
    (info,) = (name for name in read_back if name.startswith("sppo_run_info"))
    assert 'phase="training"' in info


def test_the_broker_has_the_depths_that_are_named() -> None:
    broker: Any = MemoryBroker("run")
    assert broker.depths().keys() == DEPTHS.keys()
    assert set(STEP) <= set(METRICS)
