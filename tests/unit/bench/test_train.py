"""What `bench objective --train` makes of the files of its runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sppo.bench import train
from sppo.bench.train import Trained
from sppo.config.objectives import READS
from sppo.errors import ConfigError, SppoError


def run(name: str, after: float, *, steps: int = train.STEPS) -> Trained:
    curve = {0: 0.03, steps: after}
    return Trained(objective=name, steps=steps, samples=640, seconds=80.0, curve=curve)


def test_a_run_is_read_from_its_files(tmp_path: Path) -> None:
    records = [
        {"tickets": ["a", "b"], "wait_s": 1.0, "anchor_s": 0.0, "step_s": 2.0, "sync_s": 0.5},
        {"tickets": ["c", "d"], "wait_s": 0.0, "anchor_s": 0.25, "step_s": 2.0, "sync_s": 0.5},
    ]
    events = [
        {"kind": "eval", "record": {"step": 0, "accuracy": 0.03}},
        {"kind": "phase", "phase": "training"},
        {"kind": "eval", "record": {"step": 2, "accuracy": 0.25}},
    ]
    for name, lines in (("metrics", records), ("events", events)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    found = train.trained("dpo", tmp_path, 8)
    assert (found.steps, found.samples, found.seconds) == (2, 32, 6.2)
    assert (found.before, found.after) == (0.03, 0.25)


def test_a_run_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    for name in ("metrics", "events"):
        (tmp_path / f"{name}.jsonl").touch()
    with pytest.raises(SppoError, match="no step or no evaluation"):
        train.trained("dpo", tmp_path, 8)


def test_each_is_to_learn_and_sppo_not_to_fall_behind_the_peer() -> None:
    found = [run("sppo", 0.36), run("grpo", 0.40), run("dpo", 0.05)]
    verdicts = {check.name: check.ok for check in train.checks(found)}
    assert verdicts == {
        "sppo_learned": True,
        "grpo_learned": True,
        "dpo_learned": False,
        "sppo_vs_grpo": True,
    }
    assert train.checks([run("sppo", 0.3), run("grpo", 0.4)])[-1].ok is False


def test_a_short_run_is_not_judged() -> None:
    short = [run("sppo", 0.03, steps=2), run("grpo", 0.03, steps=2)]
    assert {check.ok for check in train.checks(short)} == {None}


def test_the_table_has_a_line_for_each() -> None:
    lines = train.table([run("sppo", 0.36), run("grpo", 0.40)])
    assert lines[1].split() == ["sppo", "0.030", "0.360", "80", "640", "8.00"]
    assert len(lines) == 3


def test_settings_of_its_own_are_refused(tmp_path: Path) -> None:
    for override in ("learner.steps=3", "objective.name=dpo"):
        with pytest.raises(ConfigError, match="chooses it itself"):
            train.measure(2, [override], ["sppo-cli"], tmp_path, print)
    assert set(train.SETTINGS) <= set(READS)
