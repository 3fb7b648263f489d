"""What every role did and when."""

from __future__ import annotations

from typing import Any

from sppo.report import timeline

Json = dict[str, Any]


def step(n: int, wall_s: float, *, epoch: str = "a", **seconds: float) -> Json:
    parts = {"wait_s": 0.0, "anchor_s": 0.0, "step_s": 2.0, "sync_s": 1.0}
    return {"step": n, "epoch": epoch, "wall_s": wall_s} | parts | seconds


def sync(n: int, time: float) -> Json:
    return {"kind": "sync", "step": n, "time": time, "failures": []}


def test_a_batch_is_laid_out_back_from_its_end() -> None:
    assert timeline.batches([step(1, 20.0, wait_s=3.0, anchor_s=0.5)], {"a": 100.0}) == [
        [119.0, 120.0, "weight sync"],
        [117.0, 119.0, "trains"],
        [116.5, 117.0, "anchor log-probs"],
        [113.5, 116.5, "waits for groups"],
    ]


def test_steps_recorded_together_are_one_batch() -> None:
    first, second = step(1, 20.0, wait_s=3.0, sync_s=0.0), step(2, 20.01)
    spans = timeline.batches([first, second, step(3, 30.0)], {"a": 0.0})
    assert [what for *_, what in spans] == [
        "weight sync", "trains", "waits for groups", "weight sync", "trains",
    ]  # fmt: skip
    assert spans[1] == [15.01, 19.01, "trains"]


def test_a_life_begins_where_its_syncs_say_and_else_after_the_one_before() -> None:
    records = [step(1, 20.0), step(2, 30.0), step(3, 12.0, epoch="b")]
    events = [sync(1, 1121.0), sync(2, 1130.5)]
    assert timeline.offsets(records, events, 1000.0) == {"a": 100.5, "b": 130.5}


def test_phases_last_until_the_next_and_training_is_told_by_batches() -> None:
    def phase(time: float, name: str) -> Json:
        return {"kind": "phase", "time": time, "phase": name}

    events = [phase(10.0, "loading the model"), phase(14.0, "training"), sync(1, 15.0),
              phase(20.0, "evaluating"), sync(2, 25.0)]  # fmt: skip
    assert timeline.phases(events, 10.0) == [
        [0.0, 4.0, "loading the model"],
        [10.0, 15.0, "evaluating"],
    ]


def test_a_member_is_busy_for_a_share_of_each_interval() -> None:
    def line(time: float, life: str, busy: float, ready: float, **more: int) -> Json:
        member = {"role": "generator", "life": life, "busy_s": busy, "ready_s": ready, "tokens": 0,
                  "in_hand": 0, "scoring": 0}  # fmt: skip
        return {"time": time, "members": {"g": member | more}}

    roles = [
        line(100.0, "a", 0.0, 0.0),
        line(110.0, "a", 5.0, 10.0, tokens=200),
        line(130.0, "b", 1.0, 2.0),
        line(140.0, "b", 11.0, 12.0, in_hand=4, scoring=1),
    ]
    lane = timeline.members(roles, 100.0)["g"]
    # The first interval of a life begins with it
    assert (lane["from"], lane["t"]) == ([0.0, 28.0, 30.0], [10.0, 30.0, 40.0])
    assert (lane["busy"], lane["scoring"]) == ([0.5, 0.5, 1.0], [0.0, 0.0, 0.25])
    assert lane["tokens_s"] == [20.0, 0.0, 0.0]


def test_a_run_without_events_begins_at_nothing() -> None:
    found = timeline.of_run([step(1, 20.0)], [], [])
    assert (found["began"], found["seconds"]) == (None, 20.0)
    assert found["lanes"]["learner"]["spans"][0] == [17.0, 19.0, "trains"]
