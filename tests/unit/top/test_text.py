"""The view as text, without a terminal."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sppo import asked
from sppo.top import text
from sppo.top.state import Run
from tests.unit.top import runs
from tests.unit.top.test_state import looked


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "run"
    folder.mkdir()
    return looked(runs.going_on(folder))


def test_a_sparkline_has_the_means_of_equal_parts() -> None:
    assert text.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == text.BARS
    assert text.sparkline([0, 0, 1, 1], 2) == "▁█"
    assert text.sparkline([2.0, 2.0], 10) == "▁▁"
    assert text.sparkline([float("nan")], 10) == ""


def test_the_header_says_where_the_run_stands(run: Run) -> None:
    words = text.header(run, 80).plain
    assert words == "run  training  step 3/60  4:45 left  held-out 0.250 at step 0"
    runs.status(run.run_dir, phase="paused", seconds_left=7300.0)
    asked.ask(run.run_dir, asked.CHECKPOINT)
    asked.ask(run.run_dir, asked.PAUSE)
    run.look()
    words = text.header(run, 120).plain
    assert words.startswith("run  paused  step 3/60  2:01:40 left")
    assert words.endswith("checkpoint asked for")
    runs.status(run.run_dir, phase="training")
    runs.die(run.run_dir)
    run.look()
    assert text.header(run, 80).plain == "run  dead  step 3/60  no sign of life since 5 min ago"


def test_every_line_fits(run: Run) -> None:
    for width in (1, 20, 40, 80, 200):
        parts = [getattr(text, name)(run, width) for name in ("header", "roles", "buffer", "told")]
        parts += [text.curves(run, width), text.sample(run, width, 8)]
        assert max(len(line) for part in parts for line in part.plain.splitlines()) <= width


def test_curves_are_named_with_their_newest_value(run: Run) -> None:
    reward, held_out, mismatch, length = text.curves(run, 60).plain.splitlines()
    assert reward.startswith("reward     ▁▅█ ")
    assert reward.endswith(" 0.030")
    assert held_out.startswith("held-out ")
    assert (mismatch[-10:], length[-11:]) == ("0.013 nats", "12.0 tokens")
    run.held_out = {"win_rate": 0.6, "interval": [0.5, 0.7], "step": 3}
    assert "win rate" in text.curves(run, 60).plain
    run.held_out = {"win_rate": 0.0, "accuracy": 0.9, "step": 3}
    assert text.curves(run, 60).plain.splitlines()[1].endswith(" 0.000")
    run.records.clear()
    run.held_out = {}
    assert text.curves(run, 60).plain.count("not measured") == 4


def test_warnings_say_when(run: Run) -> None:
    assert text.told(run, 80).plain == "3 h ago  warning: step 2: cut"
    for n in range(5):
        run.told.append((time.time(), f"restart: {n}"))
    assert [line[-1] for line in text.told(run, 80).plain.splitlines()] == ["2", "3", "4"]
    run.told.append((time.time(), "given up: an answer\nof two lines \x1b[2J"))
    assert (
        text.told(run, 80).plain.splitlines()[-1]
        == "0 s ago  given up: an answer of two lines  [2J"
    )


def test_the_sample_is_prompt_best_and_worst_without_control_characters(run: Run) -> None:
    assert text.sample(run, 80, 8).plain.splitlines() == [
        "sample of step 3  train-000000003", "> What is 7 - 4?", "1  It is 3.", "0  Two.",
    ]  # fmt: skip
    run.sample = runs.SAMPLE | {"completions": ["a\x1b[2J\tb " * 200, "c"], "messages": []}
    lines = text.sample(run, 40, 6).plain.splitlines()
    assert len(lines) <= 6
    assert "\x1b" not in "".join(lines)
    run.sample = None
    assert text.sample(run, 40, 6).plain == "no sample yet"


def test_many_roles_are_counted(run: Run) -> None:
    many = {f"generator-{i}": runs.generator(life=str(i)) for i in range(40)}
    runs.status(run.run_dir, members=many)
    run.look()
    lines = text.roles(run, 80).plain.splitlines()
    assert len(lines) == text.ROLES + 2
    assert lines[-1] == "and 34 more"
