"""What a person reads at the end can be copied to the shell, and says when things were measured."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from sppo_cli import reports


def summary(**changes: Any) -> dict[str, Any]:
    return {
        "finished": True,
        "steps": 40,
        "wall_s": 12.0,
        "held_out_accuracy": {"before": 0.03, "after": 0.415, "n": 200},
        "evaluations": [{"step": 0}, {"step": 40}],
        "busy": {"learner": 0.8},
        "tickets": {"issued": 1, "trained": 1, "twice": 0, "dead": 0},
        "syncs": {"count": 1, "mean_s": 0.1, "max_s": 0.1},
    } | changes


def shown(
    capsys: pytest.CaptureFixture[str], folder: str, again: list[str], **changes: Any
) -> list[str]:
    reports.print_run(Path(folder), summary(**changes), again)
    return capsys.readouterr().out.splitlines()


def test_commands_to_try_survive_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    again = ["up", "my runs/a.toml", "--set=task.prompt={question} It's?", "--set=learner.steps=40"]
    lines = shown(capsys, "out put/ß", again)
    commands = [shlex.split(line) for line in lines[lines.index("try next:") + 1 :]]
    assert commands == [
        ["vllm", "serve", "out put/ß/export"],
        ["sppo-cli", *again[:-1], "--run-dir", "out put/ß", "--set=learner.steps=80"],
        ["sppo-cli", "status", "out put/ß", "--json"],
    ]


def test_a_stopped_run_says_how_to_go_on_and_when_it_was_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = shown(capsys, "r", ["learner", "quickstart"], finished=False, steps=47)
    assert lines[-1] == "resume with: sppo-cli learner quickstart --run-dir r"
    assert (
        "3.0% before, 41.5% after step 40 (200 questions); not measured since, the last step is 47"
        in "\n".join(lines)
    )


def test_one_that_was_measured_at_its_end_says_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(shown(capsys, "r", ["up", "quickstart"]))
    assert "3.0% before, 41.5% after (200 questions)" in text
    assert "since" not in text
    none = {"before": None, "after": None, "n": 0}
    text = "\n".join(shown(capsys, "r", ["up", "q"], held_out_accuracy=none, evaluations=[]))
    assert "held-out greedy accuracy  not measured" in text


def test_a_run_by_comparisons_says_how_often_it_wins(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"win_rate": 0.612, "interval": [0.543, 0.677], "p": 0.0016, "n": 200, "step": 40}
    lines = shown(capsys, "r", ["up", "q"], win_rate=found)
    assert (
        "wins against the base     61.2% [54.3%, 67.7%] (200 questions, sign test p = 0.0016)"
        in lines
    )
    text = "\n".join(shown(capsys, "r", ["up", "q"], win_rate=found | {"step": 20}))
    assert "67.7%] after step 20 (200" in text
    assert "p = 0.0016); not measured since, the last step is 40" in text


def test_where_the_time_went_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    time = {"step": 8.04, "wait": 1.9, "train": 5.1, "sync": 0.6, "probe": 0.0, "rest": 0.44}
    lines = shown(capsys, "r", ["up", "q"], time=time)
    assert (
        "a step                    8.0 s: waiting for groups 1.9, train 5.1, weight sync 0.6, rest "
        "0.4" in lines
    )


def test_what_rounding_keeps_of_an_export_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def exported(**found: Any) -> str:
        lines = shown(capsys, "run", ["up", "a.toml"], **found)
        (line,) = [line for line in lines if line.startswith("exported model")]
        return line.partition("(Hugging Face format)")[2]

    assert exported() == ""
    assert exported(export={"dtype": "float32", "left": None}) == ", float32"
    assert exported(export={"dtype": "bfloat16", "left": 0.124}) == (
        ", bfloat16: rounding keeps 12% of what was trained"
    )


def test_how_a_run_stands_is_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    member = {"role": "generator", "applied": "e:14", "tokens": 16122, "in_hand": 3, "host": "vm"}
    scorer = {"role": "scorer", "applied": "", "tokens": 0, "host": "vm"}
    state = {
        "run_dir": "runs/a", "step": 14, "tokens_per_s": 92.32883362298652, "mismatch": None,
        "events": {"dead": 0, "warning": 2}, "restarts": {}, "by": "up",
        "scale": {"id": "", "refused": "", "leaving": []}, "updated": time.time() - 3 * 3600,
        "members": {"generator-0": member, "scorer-0": scorer},
    }  # fmt: skip
    reports.print_status(state)
    assert capsys.readouterr().out.splitlines() == [
        "run_dir            runs/a",
        "step               14",
        "tokens_per_s       92.33",
        "events             0 dead, 2 warning",
        "by                 up",
        "updated            3 h ago",
        "generator-0        weights of step 14, 16,122 tokens, 3 groups in hand, on vm",
        "scorer-0           on vm",
    ]
