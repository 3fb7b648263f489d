"""The documentation's commands that only look are run, where a reader would run them: beside the
README's configuration and the record of a run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo.errors import ConfigError, SppoError
from tests import command_blocks, docs
from tests.bench import curves

LOOKS = ("status", "samples", "report", "plan", "config show", "config diff")
RUNS = ("quickstart", "my-run", "first", "another")
"""Runs that pages speak of; here each is the record of the quickstart."""


def shown() -> list[command_blocks.Shown]:
    """Each command that only looks, once."""
    every = [each for page in docs.pages() for each in command_blocks.ours(page)]
    looking = [e for e in every if e.name in LOOKS or (e.name == "up" and "--dry-run" in e.words)]
    return list({tuple(each.words): each for each in looking}.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reader")
    readme = docs.blocks("README.md")
    typing = "from collections.abc import Mapping, Sequence\nfrom typing import Any\n\n\n"
    python = next(block.text for block in readme if block.language == "python")
    (place / "my_scorer.py").write_text(typing + python, encoding="utf-8")
    toml = next(block.text for block in readme if block.language == "toml")
    (place / "my.toml").write_text(toml, encoding="utf-8")
    rows = [{"question": f"{a} + {b}?", "answer": str(a + b)} for a in range(40) for b in range(30)]
    (place / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for run in RUNS:
        shutil.copytree(docs.ROOT / "examples/records/quickstart", place / "runs" / run)
    return place


@pytest.mark.timeout(300)  # the first imports torch and transformers
@pytest.mark.parametrize("command", shown(), ids=lambda each: " ".join(each.words))
def test_it_runs(
    command: command_blocks.Shown, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))

    done = CliRunner().invoke(app, command.words)

    if isinstance(done.exception, ConfigError):  # a laptop need not hold what is planned for
        assert "this does not fit" in str(done.exception)
        assert command.name == "up"
    else:
        assert done.exit_code == 0, (command.place, done.exception, done.output)
    assert done.output or "--grep" in command.words


def test_what_a_page_says_of_plan_is_what_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "docs/gpu.md"
    block = next(block for block in docs.blocks(page) if block.text.startswith("$ sppo-cli plan"))
    command, _, output = block.text.partition("\n")

    # What some library notes in a process of one rank, as torchrun does.
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    done = CliRunner().invoke(app, command.removeprefix("$ sppo-cli ").split())

    assert done.exit_code == 0
    assert [line.split() for line in done.output.splitlines() if line.strip()] == [
        line.split() for line in output.splitlines()
    ]


def test_the_plot_is_drawn_from_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = docs.ROOT / "examples/records"
    given = [str(records / "quickstart"), "--trl", str(records / "trl"), "--out"]
    monkeypatch.setattr("sys.argv", ["curves", *given, str(tmp_path / "plot.png")])

    curves.main()

    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_mistake_in_a_block_would_be_found() -> None:
    with pytest.raises(SppoError):
        CliRunner().invoke(app, ["plan", "no-such-preset"], catch_exceptions=False)
