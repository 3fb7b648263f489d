"""`sppo-cli doctor`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from sppo_cli import commands, doctor_command
from typer.testing import CliRunner

from sppo.doctor import examine
from sppo.doctor.findings import Finding, fail, ok, skip, warn
from sppo.errors import ConfigError


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What the checks find."""
    there: list[Finding] = []
    monkeypatch.setattr(examine, "examine", lambda _: there)
    return there


def test_the_mend_stands_below_what_it_mends() -> None:
    told = doctor_command.lines([ok("disk", "has room"), warn("ports", "few", "sysctl")])
    assert told == [
        "ok    disk               has room",
        "warn  ports              few",
        "                         mend: sysctl",
    ]


def test_warnings_and_skips_are_no_failure(found: list[Finding]) -> None:
    found += [ok("disk", "has room"), warn("ports", "few", "sysctl"), skip("NCCL", "no GPU here")]
    said = CliRunner().invoke(commands.app, ["doctor"])
    assert said.exit_code == 0
    assert "quickstart on this machine: 1 ok, 1 warn, 1 skip, in" in said.stdout


def test_a_line_that_fails_is_named_at_the_end_with_exit_code_2(found: list[Finding]) -> None:
    found += [fail("open files", "at most 12", "ulimit -n 4096")]
    said = CliRunner().invoke(commands.app, ["doctor", "quickstart", "--json"])
    assert isinstance(said.exception, ConfigError)
    assert said.exception.exit_code == 2
    assert str(said.exception) == "not right for quickstart: open files"
    told = json.loads(said.stdout)
    assert told["findings"] == [
        {"name": "open files", "state": "fail", "words": "at most 12", "mend": "ulimit -n 4096"}
    ]
    assert (told["ok"], told["fail"]) == (0, 1)


def test_all_of_it_on_this_machine(tmp_path: Path) -> None:
    said = CliRunner().invoke(commands.app, ["doctor", "--json", "--run-dir", str(tmp_path / "a")])
    told = json.loads(said.stdout)
    names: Sequence[str] = [finding["name"] for finding in told["findings"]]
    assert {"Python", "CUDA", "memory", "disk", "model", "broker", "names", "Ray"} <= set(names)
    assert not list(tmp_path.iterdir())
