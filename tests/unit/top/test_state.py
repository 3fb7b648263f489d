"""What is known of a run from its directory."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sppo import asked
from sppo.errors import ConfigError
from sppo.launch import run_dir as run_dirs
from sppo.top.state import Run, ago
from tests.unit.top import runs


def looked(run_dir: Path) -> Run:
    run = Run(run_dir)
    run.look()
    return run


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="holds no run"):
            Run(folder)


def test_roles_with_rates_over_the_last_seconds(tmp_path: Path) -> None:
    run, now = Run(runs.going_on(tmp_path)), time.time()
    for seconds in (0, 10, 20, 30):
        work = {"tokens": 1000 + 50 * seconds, "busy_s": 10 + seconds / 2, "ready_s": 20 + seconds}
        runs.status(tmp_path, updated=now + seconds, members=runs.members(**work))
        run.look()
    learner, generator, scorer = run.roles()
    assert (learner.name, learner.version, learner.busy) == ("learner-0", "3", pytest.approx(0.8))
    assert generator.tokens_per_s == pytest.approx(50)
    assert generator.busy == pytest.approx(0.5)
    assert (generator.version, generator.does) == ("3", "samples 3, 2 at scorer")
    assert scorer.does == "waits for groups"


def test_a_generator_without_weights_and_one_without_work(tmp_path: Path) -> None:
    runs.going_on(tmp_path)
    runs.status(tmp_path, members=runs.members(applied="", in_hand=0, scoring=0))
    _, generator, _ = looked(tmp_path).roles()
    assert (generator.state, generator.does) == ("no weights", "waits for tickets")
    assert generator.tokens_per_s is None


def test_where_groups_are(tmp_path: Path) -> None:
    assert looked(runs.going_on(tmp_path)).buffer() == (3, 5, 8)
    runs.status(tmp_path, depths={})
    assert looked(tmp_path).buffer() is None


def test_what_the_learner_waits_for(tmp_path: Path) -> None:
    runs.going_on(tmp_path)
    runs.status(tmp_path, phase="the learner has waited 8 s for 3 of 8 groups: 3 are with ...")
    assert looked(tmp_path).roles()[0].does.startswith("waited 8 s for 3 of 8 groups")


@pytest.mark.parametrize(("phase", "state"), [("training", "dead"), ("stopped", "stopped")])
def test_a_run_that_has_ended(phase: str, state: str, tmp_path: Path) -> None:
    run = looked(runs.going_on(tmp_path))
    assert run.state == "training"
    runs.status(tmp_path, phase=phase)
    runs.die(tmp_path)
    run.look()
    assert run.state == state
    run_dirs.write_json(tmp_path / "summary.json", {"finished": True})
    run.look()
    assert run.state == "finished"


def test_records_and_events_are_added_and_forgotten_with_their_file(tmp_path: Path) -> None:
    run = looked(runs.going_on(tmp_path))
    assert run.curve("reward_mean") == [0.01, 0.02, 0.03]
    assert [text for _, text in run.told] == ["warning: step 2: cut"]
    assert run.held_out["accuracy"] == 0.25
    runs.append(tmp_path / "metrics.jsonl", runs.record(4, reward_mean=None))
    run.look()
    assert len(run.records) == 4
    assert run.curve("reward_mean") == [0.01, 0.02, 0.03]
    fresh = tmp_path / "fresh"
    fresh.write_text(json.dumps(runs.record(1)) + "\n")
    fresh.replace(tmp_path / "metrics.jsonl")
    run.look()
    assert len(run.records) == 1


def test_the_newest_whole_sample_is_shown(tmp_path: Path) -> None:
    run = looked(runs.going_on(tmp_path))
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step": 4, "uid"')
    run.look()
    assert run.sample == runs.SAMPLE


def test_wishes_of_a_run_that_is_up(tmp_path: Path) -> None:
    asked.ask(runs.going_on(tmp_path), asked.PAUSE)
    assert looked(tmp_path).asked == ["pause"]
    runs.die(tmp_path)
    assert looked(tmp_path).asked == []


def test_times_are_said_in_words() -> None:
    now = time.time()
    assert [ago(now - s) for s in (5, 300, 8000)] == ["5 s ago", "5 min ago", "2 h ago"]


def test_a_status_that_is_half_there_changes_nothing(tmp_path: Path) -> None:
    run = looked(runs.going_on(tmp_path))
    (tmp_path / "status.json").write_text('{"phase": "pau')
    run.look()
    assert (run.state, run.alive) == ("training", True)
