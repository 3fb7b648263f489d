from __future__ import annotations

import json
from pathlib import Path

import pytest

from sppo.errors import ConfigError
from sppo.track import follower
from sppo.track.follower import Follower, Passed
from tests.unit.track.conftest import Memory, Written


def follow(written: Written, memory: Memory) -> Follower:
    kept = written.run_dir / "memory.json"
    return Follower(written.run_dir, memory, Passed.load(kept, "abc"), kept)


def test_each_step_and_evaluation_is_passed_on_once_with_its_samples(written: Written) -> None:
    # Given a run that goes on, and a tracker whose process is another one half-way
    memory = Memory()
    first = follow(written, memory)
    first.round()
    assert memory.flushed == 0
    written.evaluation(0)
    written.step(1)
    first.round()
    first.round()
    written.step(2)
    first.round()
    second = follow(written, memory)
    second.round()
    written.step(3)
    written.evaluation(3)
    second.round()
    # Then nothing is missing or there twice
    assert [step for step, figures in memory.told if "loss" in figures] == [1, 2, 3]
    assert [step for step, figures in memory.told if "eval/accuracy" in figures] == [0, 3]
    assert memory.texts == [
        (1, "train", "A1"), (0, "eval", "eval0"), (2, "train", "A2"), (3, "train", "A3"),
        (3, "eval", "eval3"),
    ]  # fmt: skip


@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize("meanwhile", [True, False])
def test_steps_that_are_trained_again(written: Written, forgets: bool, meanwhile: bool) -> None:
    """`meanwhile`: the tracker's process lives on while the learner begins again."""
    memory = Memory(forgets=forgets)
    before = follow(written, memory)
    for n in (1, 2, 3):
        written.step(n)
    written.evaluation(3, 0.1)
    before.round()
    # When a new life goes on after step 1
    written.back_to(1)
    if meanwhile:
        before.round()
    written.step(2, "B", 0.25)
    after = before if meanwhile else follow(written, memory)
    after.round()
    for n in (3, 4):
        written.step(n, "B", 0.25)
    written.evaluation(3, 0.2)
    after.round()
    after.round()
    # Then each is there once: as it is now, or as it was first where nothing can be taken back
    losses = [(step, f["loss"]) for step, f in memory.told if "loss" in f]
    again = 0.25 if forgets else 0.5
    assert losses == [(1, 0.5), (2, again), (3, again), (4, 0.25)]
    accuracies = [f["eval/accuracy"] for _, f in memory.told if "eval/accuracy" in f]
    assert accuracies == [0.2 if forgets else 0.1]
    life = "B" if forgets else "A"
    assert [text for _, stream, text in memory.texts if stream == "train"] == [
        "A1", f"{life}2", f"{life}3", "B4",
    ]  # fmt: skip


def test_of_a_finished_run_the_line_that_counts_is_passed_on(written: Written) -> None:
    written.step(1)
    written.evaluation(1, 0.1)
    written.evaluation(2, 0.1)
    written.back_to(1)
    written.step(2, "B")
    written.evaluation(2, 0.2)
    memory = Memory()
    follow(written, memory).round()
    evaluations = [(n, f["eval/accuracy"]) for n, f in memory.told if "eval/accuracy" in f]
    assert evaluations == [(1, 0.1), (2, 0.2)]


def test_what_failed_is_passed_on_later(written: Written) -> None:
    memory = Memory()
    written.step(1)
    follow(written, memory).round()
    written.step(2)
    memory.fails = OSError("no network")
    with pytest.raises(OSError, match="no network"):
        follow(written, memory).round()
    memory.fails = None
    follow(written, memory).round()
    assert [step for step, _ in memory.told] == [1, 2]


def test_a_run_that_begins_anew_is_another_one(tmp_path: Path) -> None:
    kept = tmp_path / "x.json"
    Passed("abc").save(kept)
    assert Passed.load(kept, "def").run_id == "def"
    Passed("abc", step=3).save(kept)
    assert Passed.load(kept, "def").run_id == "abc"
    assert json.loads(kept.read_text())["step"] == 3
    # and one that a power failure left empty is told with the mend
    kept.write_text("")
    with pytest.raises(ConfigError, match=r"x\.json is damaged.*delete it"):
        Passed.load(kept, "abc")


def test_the_run_is_what_its_directory_says(written: Written) -> None:
    found = follower.about(written.run_dir, "abc")
    assert (found.id, found.name) == ("mine-abc", "mine")
    assert found.config["learner"] == {"steps": 3}
    with pytest.raises(ConfigError, match="there is no run here"):
        follower.about(written.run_dir / "other", "abc")


def test_no_secret_of_a_table_of_the_users_own_leaves(written: Written) -> None:
    (written.run_dir / "config.toml").write_text(
        'name = "mine"\n[scorer.options]\napi_key = "word"\nurl = "https://me:word@host/v1"\n'
    )
    found = follower.about(written.run_dir, "abc")
    assert "word" not in found.toml + repr(found.config)
    assert "https://host/v1" in found.toml


def test_what_was_passed_on_before_a_failure_is_not_passed_on_twice(written: Written) -> None:
    memory = Memory()
    for n in (1, 2, 3):
        written.step(n)
    written.evaluation(3)
    # When the tracker fails half-way through what is new
    memory.fails_at = 3
    with pytest.raises(OSError, match="no network"):
        follow(written, memory).round()
    memory.fails_at = 0
    follow(written, memory).round()
    assert [step for step, _ in memory.told] == [1, 2, 3, 3]
