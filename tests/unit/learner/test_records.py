"""What is written of steps that were taken, what is warned of, and the outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sppo.config import RunConfig
from sppo.learner.records import whereabouts
from sppo.transport.memory import MemoryBroker
from sppo.types import Member
from tests import makers
from tests.unit.learner.fakes import events, lineage, records

CONFIG: RunConfig = makers.training(steps=4)


def step(n: int, **changes: Any) -> dict[str, Any]:
    usual = {
        "step": n, "effective_sample_size": 1.0, "truncated_share": 0.0, "tickets": [f"train-{n}"]
    }  # fmt: skip
    return usual | changes


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_steps_are_recorded_after_what_happens_inside_and_even_if_that_is_cut_off(
    tmp_path: Path,
) -> None:
    broker = MemoryBroker()
    made, line = records(CONFIG, broker, tmp_path), lineage(CONFIG, tmp_path / "c")
    taken = [step(1), step(2)]

    def cut_off() -> None:
        with made.batch(taken, line, 0.25):
            assert events(broker, "step") == []
            taken[-1]["sync_s"] = 3.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    lines = written(tmp_path)
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[1]["sync_s"] == 3.0
    assert lines[0]["mismatch_probe"] == 0.25
    assert lines[0]["epoch"] == line.version.epoch
    assert [event["record"] for event in events(broker, "step")] == lines


@pytest.mark.parametrize(
    ("changes", "topic", "words"),
    [
        ({"effective_sample_size": 0.4}, "effective sample size", "0.40: the batch is far from"),
        (
            {"effective_sample_size_untruncated": 0.3},
            "effective sample size",
            "0.30: the batch is far from",
        ),
        ({"truncated_share": 1}, "truncation", "every completion ended at sampling.max_tokens"),
    ],
)
def test_a_step_that_a_person_should_look_at_is_warned_of(
    changes: dict[str, Any], topic: str, words: str, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    with records(CONFIG, broker, tmp_path).batch(
        [step(1, **changes), step(2)], lineage(CONFIG, tmp_path / "c"), None
    ):
        pass
    (warning,) = events(broker, "warning")
    assert warning["topic"] == topic
    assert warning["text"].startswith("step 1: ")
    assert words in warning["text"]


def test_a_step_that_was_skipped_is_said_and_recorded_without_figures(tmp_path: Path) -> None:
    broker = MemoryBroker()
    bare = {"effective_sample_size": None, "effective_sample_size_untruncated": None}
    line = lineage(CONFIG, tmp_path / "c")
    with records(CONFIG, broker, tmp_path).batch([step(1, **bare, skipped="nan")], line, None):
        pass
    assert [line["skipped"] for line in written(tmp_path)] == ["nan"]
    (warning,) = events(broker, "warning")
    assert warning["text"] == "step 1 was skipped: nan"


def test_records_of_a_line_that_was_given_up_go(tmp_path: Path) -> None:
    made = records(CONFIG, MemoryBroker(), tmp_path)
    with made.batch([step(n) for n in (1, 2, 3)], lineage(CONFIG, tmp_path / "c"), None):
        pass
    made.keep_until(2)
    assert [line["step"] for line in written(tmp_path)] == [1, 2]


def test_the_outcome_counts_tickets_trained_twice(tmp_path: Path) -> None:
    made, line = records(CONFIG, MemoryBroker(), tmp_path), lineage(CONFIG, tmp_path / "c")
    with made.batch([step(1), step(2, tickets=["train-1", "train-2"], skipped="nan")], line, None):
        pass
    line.ledger.again = 3
    line.synced(2.0)
    line.evaluations += [
        {"step": 0, "accuracy": 0.25, "n": 4},
        {"step": 2, "accuracy": 0.75, "n": 4},
    ]
    outcome = made.outcome(line, stopped=True, busy={"learner": 0.12345}, time={})
    assert outcome["tickets"] == {"issued": 0, "trained": 2, "twice": 1, "dead": 0}
    assert (outcome["made_again"], outcome["skipped"]) == (3, 1)
    assert outcome["held_out_accuracy"] == {"before": 0.25, "after": 0.75, "n": 4}
    assert outcome["syncs"] == {"count": 1, "mean_s": 2.0, "max_s": 2.0}
    assert (outcome["finished"], outcome["busy"]) == (False, {"learner": 0.123})


def test_long_work_is_a_phase_and_its_time_is_counted(tmp_path: Path) -> None:
    broker = MemoryBroker()
    made = records(CONFIG, broker, tmp_path)
    with made.long_work("saving", "save"):
        pass
    assert [event["phase"] for event in events(broker, "phase")] == ["saving"]
    assert "save" in made.usage.by_step(1)


@pytest.mark.parametrize(("left", "warned"), [(0.12, True), (0.97, False), (None, False)])
def test_an_export_that_keeps_little_of_the_training_is_warned_of(
    left: float | None, warned: bool, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    made, line = records(CONFIG, broker, tmp_path), lineage(CONFIG, tmp_path / "c")
    made.exported("bfloat16", left)
    said = [event["text"] for event in events(broker, "warning")]
    assert bool(said) is warned
    if warned:
        assert said[0].startswith("rounded to bfloat16, the exported weights keep 12% of what")
        assert said[0].endswith("set model.export_dtype = 'float32'")
    outcome = made.outcome(line, stopped=False, busy={}, time={})
    assert outcome["export"] == {"dtype": "bfloat16", "left": left}


def test_what_the_scorer_counts_stands_in_each_step(tmp_path: Path) -> None:
    broker = MemoryBroker()
    made, line = records(CONFIG, broker, tmp_path), lineage(CONFIG, tmp_path / "c")
    with made.batch([step(1)], line, None):
        pass
    for life, calls in (("x", 4), ("y", 3)):  # one is started again
        member = Member(name="scorer-0", role="scorer", life=life, counters={"calls": calls})
        broker.registry.heartbeat(member, 60)
        with made.batch([step(2)], line, None):
            pass
    assert [found["scorer_counts"] for found in written(tmp_path)] == [
        None, {"calls": 4}, {"calls": 7},
    ]  # fmt: skip


def test_where_groups_are_is_said_by_name() -> None:
    def generator(name: str, in_hand: int, scoring: int) -> Member:
        return Member(name=name, role="generator", in_hand=in_hand, scoring=scoring)

    services = [Member(name=f"scorer-{i}", role="scorer") for i in range(2)]
    assert whereabouts(services, "x") == "no generator is there"
    busy = [generator("g-0", 4, 4), generator("g-1", 3, 1)]
    assert whereabouts([*busy, *services], "llm-judge") == (
        "5 are with the scorer llm-judge (2 services); 2 are being sampled (g-1 2)"
    )
    assert whereabouts([generator("g-0", 0, 0)], "x") == "nothing is in hand of g-0"
