"""What the arguments of `sppo-cli chaos` come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sppo.chaos.chaos import Chaos, prepare
from sppo.errors import ConfigError, SppoError


def chaos(source: str = "quickstart", run_dir: Path | None = None, **changes: Any) -> Chaos:
    given = {"seed": 1, "minutes": 2.0, "every_s": 30.0, "kinds": "kill,stop"} | changes
    return prepare(source, run_dir, given.pop("set_", []), **given)


def test_the_run_is_a_plain_up_that_restarts_as_often_as_it_takes() -> None:
    found = chaos(set_=["learner.steps=3"])
    assert found.run_dir == Path("runs/quickstart-chaos-1")
    up = found.command.index("up")
    assert list(found.command[up:]) == [
        "up", "quickstart", "--run-dir", "runs/quickstart-chaos-1",
        "--set=launch.max_restarts=1000", "--set=learner.steps=3",
    ]  # fmt: skip
    assert {f.kind for f in found.faults} == {"kill", "stop"}
    assert {f.role for f in found.faults} <= {"learner-0", "generator-0", "scorer-0", "broker"}


def test_a_stopped_run_is_resumed_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('name = "mine"\n')
    found = chaos(str(tmp_path))
    assert found.run_dir == tmp_path
    assert str(tmp_path / "config.toml") in found.command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": ""}, "name what to run"),
        ({"kinds": "kill,bite"}, "--faults bite: no such fault; there are kill, stop"),
        ({"set_": ["broker.url=redis://127.0.0.1:1"]}, "wants the embedded one"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        chaos(**arguments)


def test_a_run_that_does_not_start_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    made = chaos(run_dir=tmp_path / "run")
    broken = Chaos(
        config=made.config, run_dir=made.run_dir, faults=made.faults,
        command=["sh", "-c", "echo error: no such thing; exit 2"],
    )  # fmt: skip
    with pytest.raises(SppoError, match=r"exit code 2.*\n.*no such thing"):
        broken.run(lambda _: None)
