"""The two sides of `bench loop`: what each is asked, and what it has written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sppo.bench.sides import ACCURACY, Reached, Side
from sppo.errors import ConfigError, SppoError
from tests.unit.bench.test_loop import CONFIG, EVALUATIONS, STUB, written


def test_the_first_steps_and_those_beyond_the_counted_are_left_out(tmp_path: Path) -> None:
    run = written(tmp_path, [30.0, 40.0, 43.0, 47.0, 52.0, 53.0])
    assert run.counted(3) == [3.0, 4.0, 5.0]
    with pytest.raises(SppoError, match="6 steps instead of 8"):
        run.counted(6)


def test_seconds_to_accuracy_begin_with_the_first_batch(tmp_path: Path) -> None:
    # Given a run that reached it at step 10, and one that did not
    high = written(tmp_path / "high", [1.0], EVALUATIONS).reached()
    low = written(tmp_path / "low", [1.0], {5: 0.1, 10: 0.3}).reached()
    # Then
    assert high == Reached(side="sppo", seconds=80.0, step=10, accuracy=ACCURACY)
    assert low == Reached(side="sppo", seconds=None, step=10, accuracy=0.3)
    with pytest.raises(SppoError, match="no evaluation after a step"):
        written(tmp_path / "none", [1.0]).reached()


def test_our_run_gets_the_users_settings_and_ends_with_what_was_planned(tmp_path: Path) -> None:
    # Given a command that only writes down how it was called
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    run = Side("sppo", CONFIG, ["seed=3"], [sys.executable, str(stub)], tmp_path / "run")
    # When
    run.train(7)
    # Then
    called = json.loads((tmp_path / "run" / "arguments.json").read_text())
    assert called[:2] == ["up", "quickstart"]
    assert [a for a in called if a.startswith("--set=")] == [
        "--set=seed=3", "--set=learner.steps=7", "--set=learner.checkpoint_every=1000000",
        "--set=learner.device=cpu",
        "--set=eval.every_steps=1000000", "--set=compute=float32", "--set=task.held_out=0",
    ]  # fmt: skip
    assert run.counted(5) == [2.0] * 5
    assert 0 <= run.startup_s < 20


@pytest.mark.parametrize(
    ("end", "said", "kind"),
    [
        ("sys.exit(1)", "exit code 1", SppoError),
        ("sys.exit(2)", "exit code 2", ConfigError),
        ("os.kill(os.getpid(), 9)", "SIGKILL", SppoError),
    ],
)
def test_a_side_that_fails_ends_the_benchmark_with_its_last_words(
    end: str, said: str, kind: type, tmp_path: Path
) -> None:
    fails = f"import os, sys; print('no room left', flush=True); {end}"
    run = Side("sppo", CONFIG, [], [sys.executable, "-c", fails], tmp_path / "run")
    with pytest.raises(SppoError, match=rf"ended with {said};.*\n.*no room left") as found:
        run.train(3)
    assert type(found.value) is kind
