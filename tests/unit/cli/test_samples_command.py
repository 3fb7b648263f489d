"""Samples as a person reads them, and as a program does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sppo_cli.commands import app
from typer.testing import CliRunner

SAMPLE = {
    "step": 7,
    "stream": "train",
    "uid": "train-000000003",
    "why": ["best", "any"],
    "messages": [{"role": "user", "content": "Say [bold]no[/bold]."}],
    "completions": ["no", "yes"],
    "of": 4,
    "rewards": [0.25, 1.0],
    "preferences": None,
    "details": [{"verdict": "wrong"}, {}],
    "lengths": [1, 12],
    "finish_reasons": ["stop", "length"],
    "versions": [["e:1"], ["e:1"]],
    "generator": "generator-0",
}


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    (tmp_path / "samples.jsonl").write_text(json.dumps(SAMPLE) + "\n")
    return str(tmp_path)


def test_piped_it_is_plain_text_with_the_best_answer_first(run_dir: str) -> None:
    text = CliRunner().invoke(app, ["samples", run_dir]).output
    assert text.splitlines() == [
        "── step 7  train  train-000000003  (best, any)",
        "user: Say [bold]no[/bold].",
        "",
        "[1] reward 1, 12 tokens, cut at max_tokens",
        "yes",
        "",
        "[0] reward 0.25, 1 tokens",
        "no",
        "    verdict: wrong",
        "",
        "(2 more completions were not kept)",
        "",
    ]


def test_as_json_it_is_what_is_in_the_file(run_dir: str) -> None:
    output = CliRunner().invoke(app, ["samples", run_dir, "--json", "--step=-1"]).output
    assert json.loads(output) == SAMPLE


def test_nothing_that_matches_is_said(run_dir: str) -> None:
    assert CliRunner().invoke(app, ["samples", run_dir, "--grep=maybe"]).output == (
        "nothing matches\n"
    )
